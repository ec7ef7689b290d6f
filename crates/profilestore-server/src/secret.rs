//! Random secrets, and what the store keeps of them: a SHA-256. A secret of 128 random bits or more
//! needs no slow hash.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// So many bytes that nobody can guess. Fails with why the operating system gave none.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    #[expect(clippy::disallowed_methods, reason = "a secret is drawn from the system alone")]
    let drawn = getrandom::fill(&mut bytes);
    match drawn {
        Ok(()) => Ok(bytes),
        Err(error) => Err(format!("the operating system gave no randomness: {error}")),
    }
}

/// A secret of so many bytes, as text of the letters, digits, `-` and `_`.
pub(crate) fn text<const N: usize>() -> Result<String, String> {
    Ok(URL_SAFE_NO_PAD.encode(random::<N>()?))
}

/// What is kept of a secret.
pub(crate) fn digest(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

/// Whether a secret is the one of which this was kept. Takes as long whatever differs.
pub(crate) fn is(secret: &str, kept: &str) -> bool {
    digest(secret).as_bytes().ct_eq(kept.as_bytes()).into()
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a text is the ID of something: hexadecimal digits of so many bytes.
pub(crate) fn is_id(text: &str, bytes: usize) -> bool {
    text.len() == 2 * bytes
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
