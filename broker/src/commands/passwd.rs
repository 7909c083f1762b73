//! `hoopoe passwd`: users added, changed and removed in a users file.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::access::{check_user_name, edit_users_file, hash_password};
use crate::cli::PasswdArgs;

/// Changes the file and says what it did.
///
/// # Errors
/// When there is no password, or the file cannot be read or written.
pub fn passwd(args: &PasswdArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let (file, user) = (&args.file, &args.user);
    // Before anybody types a password for nothing.
    check_user_name(user).with_context(|| format!("`{user}` cannot be a user"))?;
    if args.delete {
        edit_users_file(file, user, None)?;
        writeln!(out, "{}: removed {user}", file.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    let password = if args.stdin { first_line(io::stdin().lock())? } else { ask(user)? };
    if password.is_empty() {
        bail!("the password is empty");
    }
    let hash = hash_password(password.as_bytes()).context("the password cannot be hashed")?;
    let was_there = edit_users_file(file, user, Some(&hash))?;
    let what = if was_there { "changed the password of" } else { "added" };
    writeln!(out, "{}: {what} {user}", file.display())?;
    Ok(ExitCode::SUCCESS)
}

/// The first line without its end.
pub(super) fn first_line(mut input: impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    input.read_line(&mut line).context("cannot read the password from the standard input")?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// Asks at the terminal, twice, showing nothing.
pub(super) fn ask(user: &str) -> anyhow::Result<String> {
    let prompt = |text: String| {
        rpassword::prompt_password(text)
            .context("no terminal to ask for the password at: give it with --stdin")
    };
    let password = prompt(format!("Password of {user}: "))?;
    if password != prompt("Once more: ".to_owned())? {
        bail!("the two passwords differ");
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Users, UsersError};

    #[test]
    fn the_first_line_is_the_password() {
        for (input, password) in [
            ("secret\n", "secret"),
            ("secret\r\nmore\n", "secret"),
            ("secret", "secret"),
            (" with blanks \n", " with blanks "),
            ("", ""),
        ] {
            assert_eq!(first_line(input.as_bytes()).unwrap(), password);
        }
    }

    #[test]
    fn users_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        let hash = hash_password(b"secret").unwrap();
        edit_users_file(&file, "alice", Some(&hash)).unwrap();
        let delete = |user: &str| {
            let args =
                PasswdArgs { file: file.clone(), user: user.into(), delete: true, stdin: false };
            passwd(&args, &mut Vec::new())
        };
        assert!(delete("alice").is_ok());
        assert!(Users::read(&file).unwrap().is_empty());
        let error = delete("alice").unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(UsersError::Unknown { .. })));
        assert!(delete("a:b").is_err());
    }
}
