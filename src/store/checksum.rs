//! A checksum at the end of every stored body.
//!
//! Owns its form. SQLite finds damage to the structure of its file; a flipped byte in a text it hands out as it is,
//! and a wrong deployment or a later end would be believed. Never repairs.

/// What stands between a body and its checksum; the body stays one JSON object for every other reader.
const MARK: &str = ",\"~\":\"";
/// Eight hexadecimal digits, a quote and the closing brace.
const TAIL: usize = 8 + 2;

/// The body does not fit its checksum: bytes changed after they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the checksum does not fit the text: bytes of the file changed after they were written")]
pub(crate) struct Mismatch;

/// Seals a JSON object; any other text is left as it is.
pub(crate) fn sealed(mut body: String) -> String {
    if body.len() < 3 || !body.starts_with('{') || !body.ends_with('}') {
        return body;
    }
    let sum = crc32(body.as_bytes());
    body.pop();
    body.push_str(MARK);
    body.push_str(&format!("{sum:08x}\"}}"));
    body
}

/// The body as it was before it was sealed. A text without a seal, which earlier releases wrote, is taken as it is:
/// damage to the seal itself leaves the body whole.
///
/// # Errors
/// [`Mismatch`] when the seal does not fit.
pub(crate) fn opened(text: &str) -> Result<String, Mismatch> {
    let Some((kept, sum)) = parts(text) else {
        return Ok(text.to_owned());
    };
    let body = format!("{kept}}}");
    if crc32(body.as_bytes()) == sum {
        Ok(body)
    } else {
        Err(Mismatch)
    }
}

fn parts(text: &str) -> Option<(&str, u32)> {
    let kept = text.len().checked_sub(MARK.len() + TAIL)?;
    let (head, seal) = text.split_at_checked(kept)?;
    let digits = seal.strip_prefix(MARK)?.strip_suffix("\"}")?;
    Some((head, u32::from_str_radix(digits, 16).ok()?))
}

/// CRC-32 as in gzip: every burst of up to 32 bits is found.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        TABLE[usize::from(sum.to_le_bytes()[0] ^ byte)] ^ (sum >> 8)
    })
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut sum = at as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 {
                0xedb8_8320 ^ (sum >> 1)
            } else {
                sum >> 1
            };
            bit += 1;
        }
        table[at] = sum;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_crc_of_gzip() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_sealed_body_is_still_one_object_and_opens_to_what_it_was() {
        let body = r#"{"a":1,"b":"x"}"#.to_owned();
        let sealed = sealed(body.clone());
        let read: serde_json::Value = serde_json::from_str(&sealed).expect("JSON");
        assert_eq!(read["b"], "x");
        assert_eq!(opened(&sealed).as_deref(), Ok(body.as_str()));
        assert_eq!(opened(&body).as_deref(), Ok(body.as_str()));
    }

    #[test]
    fn no_changed_byte_of_the_body_is_believed() {
        let body = r#"{"deployment":"aaaaaaaaaaaaaaaa","expires_at":1767225600}"#;
        let sealed = sealed(body.to_owned());
        for at in 0..sealed.len() {
            for bit in 0..7 {
                let mut bytes = sealed.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let Ok(text) = String::from_utf8(bytes) else {
                    continue;
                };
                if let Ok(read) = opened(&text) {
                    // Only a broken seal is let pass, and then the body before it is whole.
                    assert!(at >= body.len() - 1, "byte {at}");
                    assert!(
                        read.starts_with(&body[..body.len() - 1]),
                        "byte {at}: {read}"
                    );
                }
            }
        }
    }
}
