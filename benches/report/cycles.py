#!/usr/bin/env python3
"""Sorts a broker's samples by kind of work; reads what `perf script -F comm,ip,sym` prints.

    perf script --fields comm,ip,sym | cycles.py MESSAGES_PER_CPU_SECOND

Prints for each kind its share of all samples and microseconds of CPU for a message. A sample is
counted once: for the first of KINDS whose pattern is found on its side, in its innermost function
("leaf") or in any that called it ("stack").
"""

import collections
import re
import sys

KINDS = [
    # Kernel. Who sleeps or wakes somebody does so within a call: looked for before the calls.
    ("sleeping", "kernel", "stack", r"^(__)?schedule$|schedule_hrtimeout|finish_task_switch"),
    ("waking others", "kernel", "stack", r"try_to_wake_up|ttwu_|wake_up_q|sock_def_readable|ep_poll_callback|__wake_up"),
    ("copying in the kernel", "kernel", "leaf", r"copy_(from|to)_iter|rep_movs|memcpy|copy_user|skb_copy|copy_page|memset|clear_page"),
    ("send", "kernel", "stack", r"sys_(sendto|sendmsg|writev)$"),
    ("recv", "kernel", "stack", r"sys_(recvfrom|recvmsg|readv)$"),
    ("epoll", "kernel", "stack", r"sys_epoll_"),
    ("futex", "kernel", "stack", r"sys_futex"),
    ("sync", "kernel", "stack", r"sys_(fdatasync|fsync|sync_file_range)"),
    ("opening, closing sockets", "kernel", "stack", r"sys_(accept4?|close|socket|shutdown|[gs]etsockopt|fcntl|getpeername)"),
    ("files", "kernel", "stack", r"sys_(p?write|p?read|open|fallocate|ftruncate|rename|unlink|.*stat|lseek|fadvise)"),
    ("pages of memory", "kernel", "stack", r"exc_page_fault|sys_(mmap|munmap|madvise|brk|mprotect)"),
    ("kernel, the rest", "kernel", "stack", r""),
    # The program.
    ("copying", "user", "leaf", r"memmove|memcpy|memset"),
    ("comparing", "user", "leaf", r"memcmp|Compar|FindGreaterOrEqual|partial_cmp"),
    ("allocating and freeing", "user", "leaf", r"^(_rjem_)?je_|malloc|^_*(libc_)?c?free|_int_free|realloc|calloc|unlink_chunk|raw_vec|operator (new|delete)|Arena::Allocate|drop_in_place|drop_slow|tcache|^arena_|extent_|sdallocx|mallocx"),
    ("locking", "user", "leaf", r"pthread_(mutex|rwlock|cond)|lll_lock|parking_lot|[Mm]utex|Condvar|RwLock|crossbeam"),
    ("hashing", "user", "leaf", r"hash|Hash|XXH|xxh|crc32|Bloom|Filter"),
    ("packing (LZ4, Zstd)", "user", "leaf", r"LZ4|ZSTD|HUF_|FSE_"),
    ("decoding", "user", "leaf", r"decode|from_utf8|Decoder|serde|parse"),
    ("encoding", "user", "leaf", r"encode|put_packet|append_payload|Encoder|write_forwardable|::fmt|format"),
    ("RocksDB", "user", "leaf", r"rocksdb"),
    ("IM", "user", "leaf", r"hoopoe_im|connection::im"),
    ("store", "user", "leaf", r"hoopoe_store"),
    ("worker, index, sessions", "user", "leaf", r"hoopoe"),
    ("the rest", "user", "stack", r""),
]
COMPILED = [(kind, side, place, re.compile(pattern)) for kind, side, place, pattern in KINDS]
IN_KERNEL = re.compile(r"entry_SYSCALL|^asm_|ret_from_fork")


def samples(lines):
    """Each sample as its thread's name and its functions, the innermost first."""
    thread, functions = None, []
    for line in lines:
        if not line.strip():
            if thread is not None:
                yield thread, functions
            thread = None
        elif not line[0].isspace():
            thread, functions = line.strip(), []
        else:
            functions.append((line.split(None, 1) + ["?"])[1].strip())
    if thread is not None:
        yield thread, functions


def kind_of(functions):
    side = "kernel" if any(IN_KERNEL.search(function) for function in functions) else "user"
    for kind, of_side, place, pattern in COMPILED:
        looked_at = functions[:1] if place == "leaf" else functions
        if of_side == side and any(pattern.search(function) for function in looked_at):
            return kind
    return "the rest"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    micros = 1e6 / float(sys.argv[1])
    kinds, threads, total = collections.Counter(), collections.Counter(), 0
    for thread, functions in samples(sys.stdin):
        total += 1
        kinds[kind_of(functions)] += 1
        threads[re.sub(r"-\d+$", "", thread)] += 1
    if not total:
        sys.exit("cycles.py: no sample on standard input; did perf record anything?")
    for kind in (kind for kind, *_ in KINDS):
        share = kinds[kind] / total
        print(f"{kind:26} {100 * share:5.1f} %  {micros * share:8.3f} us")
    shares = (f"{name} {100 * count / total:.0f} %" for name, count in threads.most_common(6))
    print(f"{'threads':26} {', '.join(shares)}, of {total} samples")


main()
