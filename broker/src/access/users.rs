//! The users file: one `user:hash` per line, the hash an argon2id string in PHC form.
//!
//! Blank lines and lines that begin with `#` are kept and mean nothing. The file is read as a
//! whole and rewritten as a whole, so that a reader never sees half of it.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Argon2, Params};
use thiserror::Error;

/// The longest user name, in bytes.
const USER_NAME_BYTES_MAX: usize = 256;
/// The most memory a password hash may ask for. A higher number is a mistake or an attack: each
/// login takes it anew.
const HASH_MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// Only the owner may read password hashes.
const FILE_MODE: u32 = 0o600;

/// Why a users file cannot be used or written.
#[derive(Debug, Error)]
pub enum UsersError {
    /// The file cannot be read.
    #[error("{}: cannot read the users: {cause}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The file cannot be written.
    #[error("{}: cannot write the users: {cause}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// A line is wrong.
    #[error("{}:{line}: {what}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what is expected.
        what: String,
    },
    /// A user name that a users file cannot hold.
    #[error("`{name}` cannot be a user: {fault}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        fault: UserNameFault,
    },
    /// The user to remove is not there.
    #[error("{}: there is no user `{name}`", file.display())]
    Unknown {
        /// The file.
        file: PathBuf,
        /// The name.
        name: String,
    },
}

/// Why a name cannot stand in a users file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UserNameFault {
    /// Anonymous clients have no name.
    #[error("a user name is not empty")]
    Empty,
    /// More than 256 bytes.
    #[error("a user name has at most {USER_NAME_BYTES_MAX} bytes")]
    TooLong,
    /// The colon ends the name.
    #[error("a user name holds no colon and no control character")]
    Character,
    /// Blanks at the ends get lost, and `#` begins a comment.
    #[error("a user name neither begins nor ends with a blank, nor begins with #")]
    Ends,
    /// `user *` in the rules is every user.
    #[error("in the rules, * is every user")]
    Star,
}

/// Whether a users file can hold the name.
///
/// # Errors
/// Why not.
pub fn check_user_name(name: &str) -> Result<(), UserNameFault> {
    if name.is_empty() {
        Err(UserNameFault::Empty)
    } else if name.len() > USER_NAME_BYTES_MAX {
        Err(UserNameFault::TooLong)
    } else if name.chars().any(|char| char == ':' || char.is_control()) {
        Err(UserNameFault::Character)
    } else if name.trim() != name || name.starts_with('#') {
        Err(UserNameFault::Ends)
    } else if name == "*" {
        Err(UserNameFault::Star)
    } else {
        Ok(())
    }
}

/// The users of one file and their password hashes.
pub struct Users {
    hashes: HashMap<Box<str>, Arc<str>, foldhash::fast::RandomState>,
    dummy: Arc<str>,
}

/// Names no hash: they do not belong in a log.
impl std::fmt::Debug for Users {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Users").field("count", &self.hashes.len()).finish_non_exhaustive()
    }
}

impl Users {
    /// Reads a users file.
    ///
    /// # Errors
    /// When it cannot be read or a line is wrong.
    pub fn read(file: &Path) -> Result<Users, UsersError> {
        let text = fs::read_to_string(file)
            .map_err(|cause| UsersError::Read { file: file.to_owned(), cause })?;
        Users::parse(&text, file)
    }

    /// The users of a text; `file` is its name in errors.
    ///
    /// # Errors
    /// When a line is wrong.
    pub fn parse(text: &str, file: &Path) -> Result<Users, UsersError> {
        let mut hashes: HashMap<Box<str>, Arc<str>, _> = HashMap::default();
        let mut dummy = None;
        for (index, line) in text.lines().enumerate() {
            let fault =
                |what: String| UsersError::Line { file: file.to_owned(), line: index + 1, what };
            let Some((name, hash)) = split_line(line) else {
                if is_entry(line) {
                    return Err(fault("expected user:hash, as hoopoe passwd writes it".to_owned()));
                }
                continue;
            };
            check_user_name(name).map_err(|fault_of_name| fault(fault_of_name.to_string()))?;
            let parsed = check_hash(hash).map_err(fault)?;
            if hashes.insert(name.into(), hash.into()).is_some() {
                return Err(fault(format!("the user `{name}` is here for the second time")));
            }
            dummy.get_or_insert_with(|| dummy_like(parsed));
        }
        let dummy = dummy.unwrap_or_else(default_dummy).into();
        Ok(Users { hashes, dummy })
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is no user; nobody can log in then.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The hash of the user's password.
    pub(super) fn hash_of(&self, name: &str) -> Option<&Arc<str>> {
        self.hashes.get(name)
    }

    /// A hash that costs what the others cost and that no password has: checked for users who do
    /// not exist, so that the time an answer takes does not tell who exists.
    pub(super) fn dummy_hash(&self) -> &Arc<str> {
        &self.dummy
    }
}

/// Whether the line is more than a comment.
fn is_entry(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

/// Name and hash of a line that has both.
fn split_line(line: &str) -> Option<(&str, &str)> {
    if is_entry(line) { line.trim().split_once(':') } else { None }
}

/// The parsed hash, if it is one that this broker checks.
fn check_hash(hash: &str) -> Result<PasswordHash, String> {
    let expected = "expected an argon2id hash, as hoopoe passwd writes it";
    let parsed = PasswordHash::new(hash).map_err(|error| format!("{expected}: {error}"))?;
    if parsed.algorithm.as_str() != "argon2id" || parsed.hash.is_none() || parsed.salt.is_none() {
        return Err(expected.to_owned());
    }
    let params = Params::try_from(&parsed).map_err(|error| format!("{expected}: {error}"))?;
    if params.m_cost() > HASH_MEMORY_KIB_MAX {
        return Err(format!("the hash takes more than {HASH_MEMORY_KIB_MAX} KiB of memory"));
    }
    Ok(parsed)
}

/// The same costs, and an output that is no password's: nobody finds one of all zeros.
fn dummy_like(mut hash: PasswordHash) -> String {
    const NOBODYS_SALT: [u8; 16] = [0; 16];
    let zeros = hash.hash.map_or(32, |output| output.len());
    hash.salt = Salt::new(&NOBODYS_SALT).ok();
    hash.hash = Output::new(&vec![0; zeros]).ok();
    hash.to_string()
}

pub(super) fn default_dummy() -> String {
    let params = Params::DEFAULT;
    let (memory, time, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    let (salt, output) = ("A".repeat(22), "A".repeat(43));
    format!("$argon2id$v=19$m={memory},t={time},p={lanes}${salt}${output}")
}

/// The argon2id hash of a password, with a salt of its own.
///
/// # Errors
/// When the operating system gives no random salt, or the password is longer than 4 GiB.
pub fn hash_password(password: &[u8]) -> Result<String, argon2::password_hash::Error> {
    Argon2::default().hash_password(password).map(|hash| hash.to_string())
}

/// Adds, changes or (with no hash) removes a user, leaving every other line as it is. The new
/// file replaces the old one at once, readable by its owner only; a file that was not there
/// is made. Returns whether the user was there before.
///
/// # Errors
/// When the name is unfit, the user to remove is missing, or the file cannot be read or written.
pub fn edit_users_file(file: &Path, name: &str, hash: Option<&str>) -> Result<bool, UsersError> {
    check_user_name(name).map_err(|fault| UsersError::Name { name: name.to_owned(), fault })?;
    let write_error = |cause| UsersError::Write { file: file.to_owned(), cause };
    // A link keeps pointing where it points; what it points at is replaced.
    let target = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    // Two edits at once would lose one of them. The lock ends with the handle.
    let lock = File::open(&folder).map_err(write_error)?;
    lock.lock().map_err(write_error)?;

    let old = match fs::read_to_string(&target) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && hash.is_some() => String::new(),
        Err(cause) => return Err(UsersError::Read { file: file.to_owned(), cause }),
    };
    // Before a file is replaced it should be one: not the certificate named by mistake.
    Users::parse(&old, file)?;
    let (new, was_there) = edit_text(&old, name, hash);
    if hash.is_none() && !was_there {
        return Err(UsersError::Unknown { file: file.to_owned(), name: name.to_owned() });
    }
    replace(&target, &folder, &new).map_err(write_error)?;
    Ok(was_there)
}

/// The text with the user's line changed, removed or added at the end.
fn edit_text(old: &str, name: &str, hash: Option<&str>) -> (String, bool) {
    let mut new = String::with_capacity(old.len() + 128);
    let mut was_there = false;
    for line in old.lines() {
        if split_line(line).is_some_and(|(of, _)| of == name) {
            was_there = true;
            if let Some(hash) = hash {
                new += &format!("{name}:{hash}\n");
            }
        } else {
            new += line;
            new += "\n";
        }
    }
    if let (false, Some(hash)) = (was_there, hash) {
        new += &format!("{name}:{hash}\n");
    }
    (new, was_there)
}

/// Writes a new file beside the old one, syncs it and puts it in the old one's place.
fn replace(target: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = folder.join(name);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&beside)?;
    let written = (|| {
        // One that was left over by a crash may have had another mode.
        file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
        if let Ok(old) = fs::metadata(target) {
            let new = file.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                // Written by root for the broker's own user: it must stay readable for it.
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, target)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // The old file is untouched; what is left of the new one is of no use to anybody.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$\
        AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn parse(text: &str) -> Result<Users, UsersError> {
        Users::parse(text, Path::new("users"))
    }

    #[test]
    fn users_are_read_around_comments() {
        let users = parse(&format!("# staff\n\nalice:{HASH}\n  bob smith:{HASH}  \n")).unwrap();
        assert_eq!(users.len(), 2);
        assert!(users.hash_of("alice").is_some() && users.hash_of("bob smith").is_some());
        assert!(users.hash_of("# staff").is_none());
    }

    #[test]
    fn a_wrong_line_is_named() {
        let cases = [
            ("alice".to_owned(), "1: expected user:hash"),
            (format!("\nalice:{HASH}\nalice:{HASH}"), "3: the user `alice` is here"),
            ("alice:secret".to_owned(), "1: expected an argon2id hash"),
            ("alice:".to_owned(), "1: expected an argon2id hash"),
            (format!("alice:{}", HASH.replace("argon2id", "argon2i")), "1: expected an argon2id"),
            (format!("alice:{}", HASH.replace("m=8", "m=2000000")), "1: the hash takes more"),
            (format!("alice:{}", HASH.replace("m=8", "m=x")), "1: expected an argon2id"),
            (format!("*:{HASH}"), "1: in the rules, * is every user"),
            (format!(":{HASH}"), "1: a user name is not empty"),
        ];
        for (text, expected) in cases {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("users:{expected}")), "{text}: {error}");
        }
    }

    #[test]
    fn the_dummy_costs_what_the_users_cost() {
        let users = parse(&format!("alice:{HASH}")).unwrap();
        let dummy = PasswordHash::new(users.dummy_hash()).unwrap();
        assert_eq!(dummy.params, PasswordHash::new(HASH).unwrap().params);
        let dummy = PasswordHash::new(&default_dummy()).unwrap();
        let real = hash_password(b"secret").unwrap();
        assert_eq!(dummy.params, PasswordHash::new(&real).unwrap().params);
    }

    #[test]
    fn editing_touches_one_line_and_keeps_the_file_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        let other = HASH.replace("t=1", "t=2");
        assert!(!edit_users_file(&file, "alice", Some(HASH)).unwrap());
        fs::write(&file, format!("# staff\nalice:{HASH}\nbob:{HASH}")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(edit_users_file(&file, "alice", Some(&other)).unwrap());
        assert!(!edit_users_file(&file, "carol", Some(HASH)).unwrap());
        assert!(edit_users_file(&file, "bob", None).unwrap());
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, format!("# staff\nalice:{other}\ncarol:{HASH}\n"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, FILE_MODE);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn editing_refuses_what_it_cannot_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        assert!(edit_users_file(&file, "bob", None).is_err(), "no file to remove from");
        fs::write(&file, format!("alice:{HASH}\n")).unwrap();
        let error = edit_users_file(&file, "bob", None).unwrap_err().to_string();
        assert!(error.ends_with("there is no user `bob`"), "{error}");
        assert!(edit_users_file(&file, "a:b", Some(HASH)).is_err());
        fs::write(&file, "-----BEGIN CERTIFICATE-----\n").unwrap();
        assert!(edit_users_file(&file, "alice", Some(HASH)).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "-----BEGIN CERTIFICATE-----\n");
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("users"), folder.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        edit_users_file(&link, "alice", Some(HASH)).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("alice:{HASH}\n"));
    }
}
