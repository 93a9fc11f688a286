//! The shape of the JSON: every asset is known when a template is compiled.
//!
//! The assets form a tree. Numbering its leaves in the order of output gives each a *slot*; a run
//! only notes which value each slot got last, and writing the JSON is one walk over the pieces.

use std::ops::Range;

use crate::number::Number;
use crate::selector::Constant;

/// One step of writing the JSON.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A value, if the slot has one. `key` spans `"name":` in the text.
    Leaf { key: Range<u32>, slot: u16 },
    /// An object, if any of the slots has a value; otherwise go on at piece `skip`.
    Enter { key: Range<u32>, slots: Range<u16>, skip: u32 },
    /// The end of an object.
    Leave,
}

/// The finished shape.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) pieces: Box<[Piece]>,
    pub(crate) text: Box<str>,
    pub(crate) slots: u16,
}

/// The tree of assets while it grows.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    key: String,
    children: Vec<usize>,
    leaf: bool,
    /// Slot of the leaf; then the slots below.
    slot: u16,
    below: Range<u16>,
}

/// Where an asset lies among the slots.
#[derive(Debug, Default)]
pub(crate) struct Spot {
    /// Its own slot, where it is a leaf.
    pub(crate) slot: Option<u16>,
    /// Slots of assets below it, which its value replaces.
    pub(crate) below: Range<u16>,
    /// Slots of assets above it, which it replaces.
    pub(crate) above: Vec<u16>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Node::default()] }
    }

    /// Makes a leaf of the asset.
    pub(crate) fn insert<'a>(&mut self, path: impl Iterator<Item = &'a str>) {
        let mut at = 0;
        for key in path {
            at = match self.child(at, key) {
                Some(child) => child,
                None => {
                    let child = self.nodes.len();
                    self.nodes.push(Node { key: key.to_owned(), ..Node::default() });
                    self.nodes[at].children.push(child);
                    child
                }
            };
        }
        self.nodes[at].leaf = true;
    }

    fn child(&self, at: usize, key: &str) -> Option<usize> {
        self.nodes[at].children.iter().copied().find(|child| self.nodes[*child].key == key)
    }

    /// Gives each leaf its slot and returns the finished shape.
    pub(crate) fn number(&mut self) -> Layout {
        let mut text = String::new();
        let mut pieces = Vec::new();
        let mut slots = 0;
        for child in self.nodes[0].children.clone() {
            self.number_node(child, &mut slots, &mut pieces, &mut text);
        }
        Layout { pieces: pieces.into(), text: text.into(), slots }
    }

    /// As deep as an asset has segments.
    fn number_node(
        &mut self,
        at: usize,
        slots: &mut u16,
        pieces: &mut Vec<Piece>,
        text: &mut String,
    ) {
        let start = index(text.len());
        write_text(&self.nodes[at].key, text);
        text.push(':');
        let key = start..index(text.len());
        if self.nodes[at].leaf {
            self.nodes[at].slot = *slots;
            pieces.push(Piece::Leaf { key: key.clone(), slot: *slots });
            // At most one leaf for each of the 512 operations.
            *slots += 1;
        }
        let children = self.nodes[at].children.clone();
        let first = *slots;
        if !children.is_empty() {
            let enter = pieces.len();
            pieces.push(Piece::Leave);
            for child in children {
                self.number_node(child, slots, pieces, text);
            }
            pieces.push(Piece::Leave);
            let skip = index(pieces.len());
            pieces[enter] = Piece::Enter { key, slots: first..*slots, skip };
        }
        self.nodes[at].below = first..*slots;
    }

    /// Where an asset lies; after [`Tree::number`].
    pub(crate) fn find<'a>(&self, path: impl Iterator<Item = &'a str>) -> Spot {
        let mut at = 0;
        let mut above = Vec::new();
        for key in path {
            if at != 0 && self.nodes[at].leaf {
                above.push(self.nodes[at].slot);
            }
            match self.child(at, key) {
                Some(child) => at = child,
                None => return Spot::default(),
            }
        }
        let node = &self.nodes[at];
        Spot { slot: node.leaf.then_some(node.slot), below: node.below.clone(), above }
    }
}

/// Positions in texts that a template of at most 64 KiB can make.
fn index(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

impl Constant {
    /// Appends the JSON form.
    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Self::Text(text) => write_text(text, out),
            Self::Number(number) => Number::Double(*number).write(out),
            Self::Boolean(boolean) => out.push_str(if *boolean { "true" } else { "false" }),
        }
    }
}

/// Appends a JSON string (RFC 8259 §7), escaping no more than it must, as JavaScript does.
pub(crate) fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let mut written = 0;
    for (position, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            b'\t' => "\\t",
            b'\n' => "\\n",
            0x0c => "\\f",
            b'\r' => "\\r",
            0..0x20 => "\\u00",
            _ => continue,
        };
        out.push_str(&text[written..position]);
        out.push_str(escape);
        if escape == "\\u00" {
            write_hex(&[byte], out);
        }
        written = position + 1;
    }
    out.push_str(&text[written..]);
    out.push('"');
}

/// Appends lower-case hexadecimal digits.
pub(crate) fn write_hex(bytes: &[u8], out: &mut String) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_order_of_output() {
        let mut tree = Tree::new();
        for asset in ["gps.lat", "speed", "gps.lon", "gps"] {
            tree.insert(asset.split('.'));
        }
        let layout = tree.number();
        assert_eq!(layout.slots, 4);
        assert_eq!(&*layout.text, r#""gps":"lat":"lon":"speed":"#);
        let lon = tree.find("gps.lon".split('.'));
        assert_eq!((lon.slot, lon.below, lon.above), (Some(2), 3..3, vec![0]));
        let gps = tree.find("gps".split('.'));
        assert_eq!((gps.slot, gps.below, gps.above), (Some(0), 1..3, vec![]));
    }

    #[test]
    fn strings_are_escaped_as_json_asks() {
        let mut out = String::new();
        write_text("a\"\\\n\0ü\u{7f}", &mut out);
        assert_eq!(out, "\"a\\\"\\\\\\n\\u0000ü\u{7f}\"");
        assert_eq!(serde_json::from_str::<String>(&out).unwrap(), "a\"\\\n\0ü\u{7f}");
    }
}
