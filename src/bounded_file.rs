//! Files from outside, read up to a limit.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The contents of a file that may be anything: a device without end, too.
///
/// # Errors
///
/// It cannot be read, or is larger than that.
pub fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit_even_if_it_has_no_end() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), [7; 10]).expect("written");
        assert_eq!(read(file.path(), 10).expect("small enough"), [7; 10]);
        assert!(read(file.path(), 9).is_err());
        assert!(read(Path::new("/dev/zero"), 1024).is_err());
    }
}
