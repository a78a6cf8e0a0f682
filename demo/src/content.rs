//! The file that the demo transfers: bytes that both ends can make on their own, and a checksum over them.

use std::io::{self, Write};

use sha2::{Digest, Sha256};

const CHUNK: usize = 64 * 1024;

/// Writes the first `size` bytes of the file.
///
/// # Errors
///
/// Those of the writer.
pub fn write(output: &mut impl Write, size: u64) -> io::Result<()> {
    for_chunks(size, |chunk| output.write_all(chunk))
}

/// SHA-256 of the first `size` bytes, in hex.
pub fn checksum(size: u64) -> String {
    let mut hash = Sha256::new();
    let hashed: io::Result<()> = for_chunks(size, |chunk| {
        hash.update(chunk);
        Ok(())
    });
    debug_assert!(hashed.is_ok(), "hashing cannot fail");
    hex(&hash.finalize())
}

/// Bytes as hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A linear congruential generator: cheap, and no two chunks are alike, so a swapped or repeated one is noticed.
fn for_chunks(size: u64, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut buffer = vec![0; CHUNK];
    let mut left = size;
    while left > 0 {
        for word in buffer.chunks_exact_mut(8) {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&state.to_le_bytes());
        }
        let now = left.min(CHUNK as u64) as usize;
        take(&buffer[..now])?;
        left -= now as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_make_the_same_bytes() {
        let mut bytes = Vec::new();
        write(&mut bytes, 200_000).unwrap();

        assert_eq!(bytes.len(), 200_000);
        assert_eq!(hex(&Sha256::digest(&bytes)), checksum(200_000));
        assert_ne!(bytes[..CHUNK], bytes[CHUNK..2 * CHUNK]);
    }
}
