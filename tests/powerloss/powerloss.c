/*
 * What a disk would hold after a power cut: a library to be preloaded into the program under test.
 *
 * SIGKILL cannot show a missing sync, because the page cache outlives the process. This library
 * watches the files below POWERLOSS_FOLDER and keeps, in POWERLOSS_IMAGE, what has been synced so
 * far and nothing else. The cut itself is a SIGKILL, after which the test puts the image in the
 * place of the folder.
 *
 * What is modelled:
 *   - Bytes count as written only when fsync or fdatasync of that file, by any descriptor, has come
 *     after them and returned. This holds for appended bytes and for bytes written in place alike,
 *     and for the length of the file.
 *   - A name (a new file, a rename, a link, a removal) counts only when its directory has been synced
 *     after it. A file that was synced but never named this way is gone; one that was removed or
 *     renamed without it is back under its old name.
 *   - sync_file_range and fallocate promise nothing and change nothing here.
 *
 * What is not:
 *   - A disk may keep more than it promised. Here all that was not synced is lost, which is the
 *     case that finds missing syncs; torn sectors and reordered survivors are not tried.
 *   - Directories themselves are durable at once.
 *   - mmap, stdio, copy_file_range, sendfile and O_DIRECT are not watched: a file written that way
 *     is empty after the cut. The log of RocksDB itself is such a file, and may be.
 *   - A descriptor is known by its number: after dup it is not followed.
 *   - A file system often writes a new file's name along with its first fsync. Not relied upon.
 *
 * The image has the folder's form: names that are durable are hard links to the objects, one per
 * file, that hold durable contents (POWERLOSS_IMAGE/.objects). It is complete once there is a file
 * POWERLOSS_IMAGE/.objects/complete.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define DESCRIPTORS 65536

/* What was done to a file since it was last synced. */
struct changes {
    off_t from, to; /* bytes written; none when from == to */
    int cut;        /* its length was changed */
};

/* A file, whatever its names. */
struct file {
    uint64_t number;
    int names;       /* live names */
    int descriptors; /* open descriptors */
    struct changes changes;
};

/* A live name, behind older ones. Names that are durable are in the image. */
struct name {
    char *path;
    struct file *file;
    struct name *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static const char *image;
static size_t folder_length;
static struct name *names;
static uint64_t last_number;
/* What a descriptor stands for: a file, or a directory by its path. */
static struct file *files[DESCRIPTORS];
static char *directories[DESCRIPTORS];

#define REAL(result, call, ...)                                     \
    static result (*real_##call)(__VA_ARGS__);                      \
    static void load_##call(void) {                                 \
        if (!real_##call) real_##call = dlsym(RTLD_NEXT, #call);    \
    }

REAL(int, open, const char *, int, ...)
REAL(int, openat, int, const char *, int, ...)
REAL(int, close, int)
REAL(ssize_t, write, int, const void *, size_t)
REAL(ssize_t, writev, int, const struct iovec *, int)
REAL(ssize_t, pwrite, int, const void *, size_t, off_t)
REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t)
REAL(int, fsync, int)
REAL(int, fdatasync, int)
REAL(int, ftruncate, int, off_t)
REAL(int, truncate, const char *, off_t)
REAL(int, rename, const char *, const char *)
REAL(int, renameat, int, const char *, int, const char *)
REAL(int, link, const char *, const char *)
REAL(int, unlink, const char *)
REAL(int, unlinkat, int, const char *, int)

/* A fault of this library must not look like one of the program. */
static void give_up(const char *what, const char *path) {
    fprintf(stderr, "powerloss: %s %s: %s\n", what, path, strerror(errno));
    abort();
}

/* Paths below the folder, "" for others; absolute ones only, as the tests give them. */
static const char *below(const char *path) {
    if (!folder || strncmp(path, folder, folder_length) != 0) return "";
    return path[folder_length] == '/' ? path + folder_length + 1 : "";
}

static int watched(const char *path) { return *below(path) != 0; }

/* Joins two paths, or a path and an ending. */
static void join(char *out, const char *first, const char *between, const char *last) {
    size_t length = strlen(first) + strlen(between) + strlen(last);
    errno = ENAMETOOLONG;
    if (length >= PATH_MAX) give_up("path", first);
    strcpy(out, first);
    strcat(out, between);
    strcat(out, last);
}

static void object_path(char *out, const struct file *file) {
    char number[32];
    snprintf(number, sizeof number, "%llu", (unsigned long long)file->number);
    join(out, image, "/.objects/", number);
}

static void image_path(char *out, const char *path) { join(out, image, "/", below(path)); }

/* Makes the folders above a path. */
static void make_parents(char *path) {
    for (char *at = path + 1; *at; at++) {
        if (*at != '/') continue;
        *at = 0;
        if (mkdir(path, 0755) != 0 && errno != EEXIST) give_up("mkdir", path);
        *at = '/';
    }
}

static struct name *find(const char *path) {
    for (struct name *name = names; name; name = name->next)
        if (strcmp(name->path, path) == 0) return name;
    return NULL;
}

static void drop_if_unused(struct file *file) {
    if (file->names == 0 && file->descriptors == 0) free(file);
}

static void forget(const char *path) {
    for (struct name **at = &names; *at; at = &(*at)->next) {
        struct name *name = *at;
        if (strcmp(name->path, path) != 0) continue;
        *at = name->next;
        name->file->names--;
        drop_if_unused(name->file);
        free(name->path);
        free(name);
        return;
    }
}

static struct name *remember(const char *path, struct file *file) {
    struct name *name = malloc(sizeof *name);
    name->path = strdup(path);
    name->file = file;
    name->next = NULL;
    file->names++;
    struct name **end = &names;
    while (*end) end = &(*end)->next;
    *end = name;
    return name;
}

/* A file that is new: nothing of it is durable, its object is empty. */
static struct file *new_file(void) {
    struct file *file = calloc(1, sizeof *file);
    file->number = ++last_number;
    char object[PATH_MAX];
    object_path(object, file);
    int to = real_open(object, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    if (to < 0) give_up("object", object);
    real_close(to);
    return file;
}

static void add(struct changes *to, struct changes more) {
    if (to->from == to->to) {
        to->from = more.from;
        to->to = more.to;
    } else if (more.from != more.to) {
        if (more.from < to->from) to->from = more.from;
        if (more.to > to->to) to->to = more.to;
    }
    to->cut |= more.cut;
}

/* Carries changes that are synced into the object of their file, open as `fd`. */
static void settle(struct file *file, struct changes changes, int fd) {
    char object[PATH_MAX], itself[PATH_MAX], part[65536];
    struct stat status;
    object_path(object, file);
    /* The descriptor may be for writing only. */
    snprintf(itself, sizeof itself, "/proc/self/fd/%d", fd);
    int from = real_open(itself, O_RDONLY | O_CLOEXEC);
    if (from < 0) give_up("read", itself);
    int to = real_open(object, O_WRONLY | O_CLOEXEC);
    if (to < 0) give_up("object", object);
    while (changes.from < changes.to) {
        off_t left = changes.to - changes.from;
        size_t step = left < (off_t)sizeof part ? (size_t)left : sizeof part;
        ssize_t count = pread(from, part, step, changes.from);
        if (count < 0) give_up("read", itself);
        if (count == 0) break; /* shorter meanwhile: `cut` says so */
        if (real_pwrite(to, part, count, changes.from) != count) give_up("object", object);
        changes.from += count;
    }
    if (changes.cut && fstat(from, &status) == 0 && real_ftruncate(to, status.st_size) != 0)
        give_up("object", object);
    real_close(from);
    real_close(to);
}

/* The names in a directory become what they are: its live ones are linked, older ones first, then
 * others removed. A kill in between is no harm: nothing is named before what it builds on. */
static void settle_directory(const char *path) {
    char folder_in_image[PATH_MAX], object[PATH_MAX], target[PATH_MAX];
    size_t length = strlen(path);
    image_path(folder_in_image, path);
    for (struct name *name = names; name; name = name->next) {
        if (strncmp(name->path, path, length) != 0 || name->path[length] != '/') continue;
        if (strchr(name->path + length + 1, '/')) continue;
        object_path(object, name->file);
        image_path(target, name->path);
        make_parents(target);
        /* A rename replaces a name in one step, so does this. */
        char step[PATH_MAX];
        join(step, target, ".step", "");
        real_unlink(step);
        if (real_link(object, step) != 0) give_up("link", target);
        if (real_rename(step, target) != 0) give_up("rename", target);
        /* Of two names of one file rename keeps both. */
        real_unlink(step);
    }
    DIR *entries = opendir(folder_in_image);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        char live[PATH_MAX];
        if (entry->d_type == DT_DIR) continue;
        join(live, path, "/", entry->d_name);
        join(target, folder_in_image, "/", entry->d_name);
        if (!find(live)) real_unlink(target);
    }
    if (entries) closedir(entries);
}

/* What is there at the start is durable. */
static void take_folder(const char *path) {
    DIR *entries = opendir(path);
    if (!entries) return;
    for (struct dirent *entry; (entry = readdir(entries));) {
        char inside[PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        join(inside, path, "/", entry->d_name);
        if (entry->d_type == DT_DIR) {
            take_folder(inside);
            continue;
        }
        struct stat status;
        int from = real_open(inside, O_RDONLY | O_CLOEXEC);
        if (from < 0 || fstat(from, &status) != 0) give_up("start", inside);
        struct file *file = new_file();
        remember(inside, file);
        settle(file, (struct changes){0, status.st_size, 1}, from);
        real_close(from);
    }
    closedir(entries);
    settle_directory(path);
}

__attribute__((constructor)) static void begin(void) {
    load_open(), load_openat(), load_close(), load_write(), load_writev(), load_pwrite();
    load_pwritev(), load_fsync(), load_fdatasync(), load_ftruncate(), load_truncate();
    load_rename(), load_renameat(), load_link(), load_unlink(), load_unlinkat();
    const char *below_this = getenv("POWERLOSS_FOLDER");
    image = getenv("POWERLOSS_IMAGE");
    if (!below_this || !image) return;
    char objects[PATH_MAX];
    join(objects, image, "/.objects/", "");
    make_parents(objects);
    folder_length = strlen(below_this);
    folder = below_this;
    take_folder(folder);
    /* Up to here the program has done nothing: an image without this file is to be ignored. */
    char complete[PATH_MAX];
    join(complete, image, "/.objects/complete", "");
    int fd = real_open(complete, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0) give_up("image", complete);
    real_close(fd);
}

/* A descriptor was opened. */
static int opened(int fd, const char *path, int flags, int existed) {
    if (fd < 0 || fd >= DESCRIPTORS || !(watched(path) || (folder && !strcmp(path, folder))))
        return fd;
    struct stat status;
    int saved = errno;
    if (fstat(fd, &status) != 0) return fd;
    pthread_mutex_lock(&lock);
    if (S_ISDIR(status.st_mode)) {
        directories[fd] = strdup(path);
    } else if (S_ISREG(status.st_mode)) {
        struct name *name = find(path);
        if (!name && (!existed || flags & (O_WRONLY | O_RDWR)))
            name = remember(path, new_file());
        if (name) {
            files[fd] = name->file;
            name->file->descriptors++;
            if (flags & O_TRUNC) name->file->changes.cut = 1;
        }
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return fd;
}

#define MODE(flags, mode)                  \
    mode_t mode = 0;                       \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list more;                      \
        va_start(more, flags);             \
        mode = va_arg(more, mode_t);       \
        va_end(more);                      \
    }

int open(const char *path, int flags, ...) {
    load_open();
    MODE(flags, mode)
    int existed = access(path, F_OK) == 0;
    return opened(real_open(path, flags, mode), path, flags, existed);
}

int open64(const char *path, int flags, ...) {
    load_open();
    MODE(flags, mode)
    int existed = access(path, F_OK) == 0;
    return opened(real_open(path, flags | O_LARGEFILE, mode), path, flags, existed);
}

int openat(int at, const char *path, int flags, ...) {
    load_openat();
    MODE(flags, mode)
    int existed = faccessat(at, path, F_OK, 0) == 0;
    return opened(real_openat(at, path, flags, mode), path, flags, existed);
}

int openat64(int at, const char *path, int flags, ...) {
    load_openat();
    MODE(flags, mode)
    int existed = faccessat(at, path, F_OK, 0) == 0;
    return opened(real_openat(at, path, flags | O_LARGEFILE, mode), path, flags, existed);
}

int creat(const char *path, mode_t mode) {
    return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd) {
    load_close();
    if (folder && fd >= 0 && fd < DESCRIPTORS && (files[fd] || directories[fd])) {
        pthread_mutex_lock(&lock);
        if (files[fd]) {
            files[fd]->descriptors--;
            drop_if_unused(files[fd]);
        }
        free(directories[fd]);
        files[fd] = NULL;
        directories[fd] = NULL;
        pthread_mutex_unlock(&lock);
    }
    return real_close(fd);
}

static struct file *file_of(int fd) {
    return folder && fd >= 0 && fd < DESCRIPTORS ? files[fd] : NULL;
}

/* Bytes were written. */
static void wrote(struct file *file, off_t at, ssize_t count) {
    if (count <= 0) return;
    pthread_mutex_lock(&lock);
    add(&file->changes, (struct changes){at, at + count, 0});
    pthread_mutex_unlock(&lock);
}

/* Where the write that has just returned began. */
static off_t began(int fd, ssize_t count) {
    int saved = errno;
    off_t behind = lseek(fd, 0, SEEK_CUR);
    errno = saved;
    return behind - count;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    load_write();
    struct file *file = file_of(fd);
    ssize_t count = real_write(fd, bytes, length);
    if (file) wrote(file, began(fd, count), count);
    return count;
}

ssize_t writev(int fd, const struct iovec *parts, int number) {
    load_writev();
    struct file *file = file_of(fd);
    ssize_t count = real_writev(fd, parts, number);
    if (file) wrote(file, began(fd, count), count);
    return count;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    load_pwrite();
    struct file *file = file_of(fd);
    ssize_t count = real_pwrite(fd, bytes, length, at);
    if (file) wrote(file, at, count);
    return count;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    return pwrite(fd, bytes, length, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int number, off_t at) {
    load_pwritev();
    struct file *file = file_of(fd);
    ssize_t count = real_pwritev(fd, parts, number, at);
    if (file) wrote(file, at, count);
    return count;
}

ssize_t pwritev64(int fd, const struct iovec *parts, int number, off64_t at) {
    return pwritev(fd, parts, number, at);
}

int ftruncate(int fd, off_t length) {
    load_ftruncate();
    struct file *file = file_of(fd);
    int result = real_ftruncate(fd, length);
    if (file && result == 0) {
        pthread_mutex_lock(&lock);
        file->changes.cut = 1;
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

int truncate(const char *path, off_t length) {
    load_truncate();
    int result = real_truncate(path, length);
    if (result == 0 && watched(path)) {
        pthread_mutex_lock(&lock);
        struct name *name = find(path);
        if (name) name->file->changes.cut = 1;
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int truncate64(const char *path, off64_t length) { return truncate(path, length); }

/* Syncs. What was written before that began is durable when it has returned; what is written
 * meanwhile is not. */
static int synced(int fd, int (*sync)(int)) {
    struct file *file = file_of(fd);
    struct changes changes = {0, 0, 0};
    if (file) {
        pthread_mutex_lock(&lock);
        changes = file->changes;
        file->changes = (struct changes){0, 0, 0};
        pthread_mutex_unlock(&lock);
    }
    int result = sync(fd);
    int saved = errno;
    pthread_mutex_lock(&lock);
    if (file && result == 0) settle(file, changes, fd);
    if (file && result != 0) add(&file->changes, changes);
    if (folder && result == 0 && fd >= 0 && fd < DESCRIPTORS && directories[fd])
        settle_directory(directories[fd]);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int fsync(int fd) {
    load_fsync();
    return synced(fd, real_fsync);
}

int fdatasync(int fd) {
    load_fdatasync();
    return synced(fd, real_fdatasync);
}

/* A name moved. */
static void renamed(const char *from, const char *to) {
    pthread_mutex_lock(&lock);
    struct name *name = find(from);
    if (name) {
        struct file *file = name->file;
        file->names++;
        forget(to);
        forget(from);
        if (watched(to)) remember(to, file);
        file->names--;
        drop_if_unused(file);
    }
    pthread_mutex_unlock(&lock);
}

int rename(const char *from, const char *to) {
    load_rename();
    int result = real_rename(from, to);
    if (result == 0 && (watched(from) || watched(to))) renamed(from, to);
    return result;
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
    load_renameat();
    int result = real_renameat(from_at, from, to_at, to);
    if (result == 0 && (watched(from) || watched(to))) renamed(from, to);
    return result;
}

int link(const char *from, const char *to) {
    load_link();
    int result = real_link(from, to);
    if (result == 0 && watched(to)) {
        pthread_mutex_lock(&lock);
        struct name *name = find(from);
        if (name) remember(to, name->file);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

static int removed(const char *path, int result) {
    if (result == 0 && watched(path)) {
        pthread_mutex_lock(&lock);
        forget(path);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int unlink(const char *path) {
    load_unlink();
    return removed(path, real_unlink(path));
}

int unlinkat(int at, const char *path, int flags) {
    load_unlinkat();
    return removed(path, real_unlinkat(at, path, flags));
}
