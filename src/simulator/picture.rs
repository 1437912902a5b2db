//! A camera's thumbnail: a small greyscale PNG as a data URL, the way typed events show on the
//! stream. Pure.
//!
//! The picture is stored, not compressed, so that twenty lines make a file every browser shows.

/// Pixels a row.
const WIDTH: u8 = 32;
/// Rows.
const HEIGHT: u8 = 20;

/// A yard at `daylight` (0 is night, 1 is noon) with something bright at `x`, `y`, both taken into
/// the picture.
pub(super) fn data_url(daylight: f64, x: u8, y: u8) -> String {
    let (x, y) = (i16::from(x % WIDTH), i16::from(y % HEIGHT));
    let mut rows = Vec::with_capacity(usize::from(HEIGHT) * (usize::from(WIDTH) + 1));
    for row in 0..i16::from(HEIGHT) {
        rows.push(0); // this row's filter: none
        for column in 0..i16::from(WIDTH) {
            let sky = 30.0 + 150.0 * daylight.clamp(0.0, 1.0);
            let shade = if row < i16::from(HEIGHT) / 2 { sky } else { sky / 2.0 };
            let thing = (row - y).abs() <= 1 && (column - x).abs() <= 1;
            rows.push(if thing { 255 } else { shade as u8 });
        }
    }
    format!("data:image/png;base64,{}", base64(&png(&rows)))
}

/// Standard alphabet, padded.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let mut bits = [0_u8; 4];
        bits[1..=three.len()].copy_from_slice(three);
        let bits = u32::from_be_bytes(bits);
        for place in 0..4 {
            let sextet = (bits >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= three.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    text
}

fn png(rows: &[u8]) -> Vec<u8> {
    let header = [0, 0, 0, WIDTH, 0, 0, 0, HEIGHT, 8, 0, 0, 0, 0];
    // One stored deflate block: 660 bytes are far below its 65,535.
    let length = rows.len() as u16;
    let mut data = vec![0x78, 0x01, 0x01];
    data.extend_from_slice(&length.to_le_bytes());
    data.extend_from_slice(&(!length).to_le_bytes());
    data.extend_from_slice(rows);
    data.extend_from_slice(&adler32(rows).to_be_bytes());
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, body) in [(b"IHDR", header.as_slice()), (b"IDAT", &data), (b"IEND", &[])] {
        let checked = [kind.as_slice(), body].concat();
        png.extend_from_slice(&(body.len() as u32).to_be_bytes());
        png.extend_from_slice(&checked);
        png.extend_from_slice(&crc32(&checked).to_be_bytes());
    }
    png
}

fn adler32(bytes: &[u8]) -> u32 {
    let (low, high) = bytes.iter().fold((1_u32, 0_u32), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    high << 16 | low
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_its_rfc() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn checksums_have_their_known_values() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn a_thumbnail_is_about_a_kilobyte() {
        let url = data_url(0.5, 200, 200);
        assert!(url.starts_with("data:image/png;base64,iVBORw0KGgo"));
        assert!((800..1_024).contains(&url.len()), "{}", url.len());
    }
}
