//! Errors in words.

/// An error with its causes. Many of ours say their cause themselves: it is not said twice.
pub(crate) fn said(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use cell_database::CellDatabase;

    use super::*;

    #[test]
    fn each_cause_is_said_once() {
        let error = anyhow!("the disk is full").context("no commit").context("closing");
        assert_eq!(said(&error), "closing: no commit: the disk is full");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cells.db");
        let error = CellDatabase::open(&path).unwrap_err();
        let text =
            format!("cell database {}: No such file or directory (os error 2)", path.display());
        assert_eq!(said(&anyhow::Error::from(error)), text);
    }
}
