//! Both backends give the same bytes, and refuse the same ones.
#![cfg(feature = "aws-lc-rs")]

use super::{aws_lc, rust_crypto};
use crate::error::{Error, KeyFault};

/// Bytes that look random, the same ones in every run.
struct Bytes(u64);

impl Bytes {
    fn next(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 32);
        while bytes.len() < length {
            self.0 += 1;
            bytes.extend_from_slice(&rust_crypto::sha256(&self.0.to_be_bytes()));
        }
        bytes.truncate(length);
        bytes
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.next(N).try_into().unwrap()
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(u16::from_be_bytes(self.array())) % limit
    }
}

/// One call of both ciphers.
#[derive(Clone)]
struct Case {
    key: [u8; 32],
    nonce: [u8; 12],
    associated_data: Vec<u8>,
    /// The plaintext; sealed: the ciphertext with its tag.
    text: Vec<u8>,
}

impl Case {
    fn some(bytes: &mut Bytes, text: usize, associated_data: usize) -> Self {
        Self {
            key: bytes.array(),
            nonce: bytes.array(),
            associated_data: bytes.next(associated_data),
            text: bytes.next(text),
        }
    }

    /// Seals with both, and returns what both came to.
    fn seal(&self) -> Self {
        let [mut one, mut other] = [self.text.clone(), self.text.clone()];
        let cipher = rust_crypto::Cipher::new(&self.key).unwrap();
        let tag = cipher.seal(self.nonce, &self.associated_data, &mut one).unwrap();
        one.extend_from_slice(&tag);
        let cipher = aws_lc::Cipher::new(&self.key).unwrap();
        let tag = cipher.seal(self.nonce, &self.associated_data, &mut other).unwrap();
        other.extend_from_slice(&tag);
        assert!(one == other, "{} bytes are sealed to other bytes", self.text.len());
        Self { text: one, ..self.clone() }
    }

    /// Opens with both, and returns what both came to.
    fn open(&self) -> Option<Vec<u8>> {
        let [mut one, mut other] = [self.text.clone(), self.text.clone()];
        let cipher = rust_crypto::Cipher::new(&self.key).unwrap();
        let one = cipher.open(self.nonce, &self.associated_data, &mut one).map(|text| text.to_vec());
        let cipher = aws_lc::Cipher::new(&self.key).unwrap();
        let other = cipher.open(self.nonce, &self.associated_data, &mut other).map(|text| text.to_vec());
        assert!(one == other, "{} sealed bytes are opened otherwise", self.text.len());
        one
    }

    /// With one bit altered, somewhere.
    fn altered(&self, bytes: &mut Bytes) -> [Option<Self>; 5] {
        let mut flip = |whole: &[u8], within: std::ops::Range<usize>| {
            let mut altered = whole.to_vec();
            let at = (!within.is_empty()).then(|| within.start + bytes.below(within.len()))?;
            altered[at] ^= 1 << bytes.below(8);
            Some(altered)
        };
        let text = self.text.len() - 16;
        let sealed = |text| Self { text, ..self.clone() };
        [
            flip(&self.text, 0..text).map(sealed),
            flip(&self.text, text..text + 16).map(sealed),
            flip(&self.associated_data, 0..self.associated_data.len())
                .map(|associated_data| Self { associated_data, ..self.clone() }),
            flip(&self.nonce, 0..12).map(|nonce| Self { nonce: nonce.try_into().unwrap(), ..self.clone() }),
            flip(&self.key, 0..32).map(|key| Self { key: key.try_into().unwrap(), ..self.clone() }),
        ]
    }
}

/// I1, I3: for any key, nonce, associated data and plaintext.
#[test]
fn i1_ciphertexts_are_the_same_byte_for_byte_and_so_is_what_is_refused() {
    let mut bytes = Bytes(0);
    // Around the lengths of a block, of eight, and of what is done at once with vectors; none, and a large one.
    let mut lengths: Vec<usize> =
        [0, 16, 32, 128, 256, 512, 768, 4_096].iter().flat_map(|&near| near..near + 2).collect();
    lengths.extend([15, 31, 127, 255, 511, 767, 65_535, 65_536, (1 << 20) + 7]);
    lengths.extend((0..100).map(|_| bytes.below(3_000)));
    for length in lengths {
        let associated_data = bytes.below(300) * usize::from(length % 3 != 0);
        let case = Case::some(&mut bytes, length, associated_data);
        let sealed = case.seal();
        assert!(sealed.open().is_some_and(|text| text == case.text), "{length} bytes");
        for altered in sealed.altered(&mut bytes).into_iter().flatten() {
            assert_eq!(altered.open(), None, "{length} bytes");
        }
    }
}

/// I3: too short for a tag, cut anywhere, and continued.
#[test]
fn i3_what_was_cut_is_refused_by_both() {
    let mut bytes = Bytes(1 << 32);
    let sealed = Case::some(&mut bytes, 64, 9).seal();
    for length in 0..sealed.text.len() {
        let cut = Case { text: sealed.text[..length].to_vec(), ..sealed.clone() };
        assert_eq!(cut.open(), None, "{length} bytes");
    }
    let continued = Case { text: [&sealed.text[..], &[0]].concat(), ..sealed };
    assert_eq!(continued.open(), None);
}

#[test]
fn derived_keys_macs_and_hashes_are_the_same() {
    let mut bytes = Bytes(2 << 32);
    for round in 0..200 {
        let key = bytes.array();
        let pieces: Vec<Vec<u8>> =
            (0..round % 4).map(|_| bytes.below(200)).map(|length| Bytes(round).next(length)).collect();
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        assert_eq!(rust_crypto::sha256(&pieces.concat()), aws_lc::sha256(&pieces.concat()));
        let macs = [rust_crypto::Hmac::new(&key).unwrap().mac(&pieces), aws_lc::Hmac::new(&key).unwrap().mac(&pieces)];
        assert_eq!(macs[0], macs[1]);
        let cloned = aws_lc::Hmac::new(&key).unwrap().clone();
        assert_eq!([cloned.mac(&pieces), cloned.mac(&pieces)], macs, "a key is used more than once");

        let length = 1 + bytes.below(200);
        let mut expanded = [vec![0; length], vec![0; length]];
        rust_crypto::Hkdf::new(&key).unwrap().expand(&pieces, &mut expanded[0]).unwrap();
        aws_lc::Hkdf::new(&key).unwrap().expand(&pieces, &mut expanded[1]).unwrap();
        assert_eq!(expanded[0], expanded[1]);

        let secrets: Vec<[u8; 32]> = (0..1 + bytes.below(5)).map(|_| bytes.array()).collect();
        let secrets: Vec<&[u8; 32]> = secrets.iter().collect();
        rust_crypto::extract_and_expand(&key, &secrets, &pieces.concat(), &mut expanded[0]).unwrap();
        aws_lc::extract_and_expand(&key, &secrets, &pieces.concat(), &mut expanded[1]).unwrap();
        assert_eq!(expanded[0], expanded[1]);
    }
    // More than 255 blocks.
    let mut too_long = vec![0; 255 * 32 + 1];
    assert!(rust_crypto::Hkdf::new(&[1; 32]).unwrap().expand(&[], &mut too_long).is_err());
    assert!(aws_lc::Hkdf::new(&[1; 32]).unwrap().expand(&[], &mut too_long).is_err());
}

/// The bytes of the operating system are not replaced: both sources have to fail before bytes can be guessed.
#[test]
fn random_bytes_are_added_to_those_that_are_there() {
    let mut bytes = vec![0x55; 200];
    let fifteens = |drawn: &mut [u8]| {
        drawn.fill(0x0f);
        Ok(())
    };
    aws_lc::add(&mut bytes, fifteens).unwrap();
    assert_eq!(bytes, [0x5a; 200]);
    let refused = aws_lc::add(&mut bytes, |_| Err(Error::Keys(KeyFault::Random)));
    assert!(matches!(refused, Err(Error::Keys(KeyFault::Random))));
    let mut bytes = vec![0x55; 200];
    rust_crypto::add_random(&mut bytes).unwrap();
    assert_eq!(bytes, [0x55; 200], "RustCrypto has none to add");
    let mut seen = std::collections::HashSet::new();
    for length in [16, 63, 64, 65, 200] {
        let mut added = vec![0; length];
        aws_lc::add_random(&mut added).unwrap();
        // A run of 16 zeroes would be bytes to which nothing was added.
        assert!(added.chunks_exact(16).all(|chunk| chunk != [0; 16] && seen.insert(chunk.to_vec())), "{length} bytes");
    }
    assert_ne!(rust_crypto::NAME, aws_lc::NAME);
}
