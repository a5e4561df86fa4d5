//! Quoting for the shell at the other end.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// One word as a POSIX shell reads it back unchanged (POSIX.1-2017, Shell Command Language, 2.2.2). Within single
/// quotes nothing is special; a single quote itself is put outside of them.
pub fn quote(word: &OsStr) -> OsString {
    let bytes = word.as_bytes();
    // `=` is not plain (it would be an assignment in the first word), nor is `~`.
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_-./:@%+,".contains(b);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return word.to_owned();
    }
    let mut quoted = Vec::with_capacity(bytes.len() + 2);
    quoted.push(b'\'');
    for &byte in bytes {
        match byte {
            b'\'' => quoted.extend_from_slice(br"'\''"),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}

/// An argument vector as one line for a shell.
pub fn command_line<S: AsRef<OsStr>>(argv: &[S]) -> OsString {
    let mut line = OsString::new();
    for word in argv {
        if !line.is_empty() {
            line.push(" ");
        }
        line.push(quote(word.as_ref()));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn plain_words_stay_readable() {
        assert_eq!(
            command_line(&["printf", "%s\n", "a b", "it's", "", "A=b"]),
            "printf '%s\n' 'a b' 'it'\\''s' '' 'A=b'"
        );
    }

    /// What a real shell makes of it: each argument followed by a NUL.
    fn through_shell(words: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut argv = vec![OsString::from("printf"), OsString::from("%s\\0")];
        argv.extend(words.iter().cloned().map(OsString::from_vec));
        let output = Command::new("sh")
            .arg("-c")
            .arg(command_line(&argv))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let mut read: Vec<_> = output
            .stdout
            .split(|b| *b == 0)
            .map(<[u8]>::to_vec)
            .collect();
        read.pop();
        read
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
        /// Any bytes but NUL, which no argument can hold.
        #[test]
        fn a_shell_reads_back_what_was_quoted(words in prop::collection::vec(prop::collection::vec(1u8.., 0..40), 1..6)) {
            prop_assert_eq!(through_shell(&words), words);
        }

        #[test]
        fn also_where_everything_is_special(words in prop::collection::vec("['\"\\\\$`! *?~#&|;<>(){}\\[\\]\n\t=-]{0,12}", 1..5)) {
            let words: Vec<_> = words.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(through_shell(&words), words);
        }
    }
}
