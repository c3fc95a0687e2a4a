//! Words of a command quoted for a POSIX shell.

use crate::ClusterError;

/// The command as one line that a shell reads back to exactly these words.
pub fn quote_command(words: &[String]) -> Result<String, ClusterError> {
    if words.is_empty() {
        return Err(ClusterError::NoCommand);
    }
    let quoted: Result<Vec<String>, _> = words.iter().map(|word| quote(word)).collect();
    Ok(quoted?.join(" "))
}

/// One word; plain where no shell would read anything into it, else in single quotes.
fn quote(word: &str) -> Result<String, ClusterError> {
    if word.contains('\0') {
        return Err(ClusterError::ZeroByte(word.replace('\0', "\\0")));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Ok(word.to_owned());
    }
    // Nothing is special inside single quotes but the single quote itself.
    Ok(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_back_the_same_words() {
        let words: Vec<String> = [
            "plain-1.0/x",
            "",
            "two words",
            "it's",
            "$(touch /tmp/x) `id` ${HOME}",
            "a\nb",
            "\\",
            "*",
            "--set=stages=[\"1a\"]",
            "é",
            "~",
            "x=y",
            "#no",
        ]
        .map(str::to_owned)
        .to_vec();
        let script = format!(
            "printf '%s\\0' {}",
            quote_command(&words).expect("all words can be quoted")
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        let read: Vec<String> = String::from_utf8(output.stdout)
            .unwrap()
            .split_terminator('\0')
            .map(str::to_owned)
            .collect();
        assert_eq!(read, words, "{script}");
    }

    #[test]
    fn what_no_shell_can_hold_is_refused() {
        assert_eq!(
            quote_command(&["a\0b".into()]),
            Err(ClusterError::ZeroByte("a\\0b".into()))
        );
        assert_eq!(quote_command(&[]), Err(ClusterError::NoCommand));
    }
}
