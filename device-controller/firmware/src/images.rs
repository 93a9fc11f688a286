//! Firmware images: files named by their digests, and who uses them at the moment.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use aws_lc_rs::digest::{Context, SHA256, digest};
use hashbrown::HashMap;
use rusqlite::Connection;
use thiserror::Error;
use vocabulary::Timestamp;

use crate::image_table as table;

/// Hexadecimal digits of a digest that name an image towards devices: URIs stay short, and no two
/// of a few hundred images share 64 bits.
pub const NAME_CHARS: usize = 16;
/// Characters of a name or a version that a user gives.
pub const LABEL_CHARS_MAX: usize = 128;

/// Uploads at the same time: each may take the size of an image on the disk before it is refused.
pub const UPLOADS_MAX: usize = 4;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a SHA-256 has 64 hexadecimal digits")]
pub struct ParseDigestError;

/// An image as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What names it.
    pub digest: Digest,
    /// How its owner calls it.
    pub name: String,
    /// The version that a device reports which has it.
    pub version: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// When it was uploaded.
    pub created: Timestamp,
}

/// Limits on images.
#[derive(Debug, Clone, Copy)]
pub struct ImageLimits {
    /// Bytes of one image. 64 MiB by default: beyond what a cellular module of today has.
    pub bytes_max: u64,
    /// Images that are kept. 200 by default.
    pub images_max: u32,
    /// Bytes of the images in memory, i.e. of all that unfinished jobs use. 512 MiB by default.
    pub loaded_bytes_max: u64,
}

/// Why something about images failed.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The upload is too long.
    #[error("the image is longer than {0} bytes")]
    TooLarge(u64),
    /// The upload is empty.
    #[error("the image is empty")]
    Empty,
    /// What arrived is not what the user announced.
    #[error("the image that arrived has the SHA-256 {found}, announced was {announced}")]
    OtherDigest {
        /// Of what arrived.
        found: Digest,
        /// What the user said.
        announced: Digest,
    },
    /// It is there under another name or version.
    #[error("the same image is there already, as {name:?}, version {version:?}")]
    Exists {
        /// Its name.
        name: String,
        /// Its version.
        version: Option<String>,
    },
    /// There are too many.
    #[error("{0} images are kept, which is the limit: delete some")]
    Full(u32),
    /// Others upload at the moment.
    #[error("{UPLOADS_MAX} uploads are under way, which is the limit")]
    Busy,
    /// There is no such image.
    #[error("image {0} does not exist")]
    Unknown(Digest),
    /// A job uses it.
    #[error("image {0} is used by a job that has not ended")]
    InUse(Digest),
    /// Its file is not what was uploaded.
    #[error("the file of image {0} is damaged: upload it again")]
    Damaged(Digest),
    /// Too much would be in memory.
    #[error("the images of all unfinished jobs together exceed {0} bytes")]
    MemoryFull(u64),
    /// A file cannot be read or written.
    #[error("image file: {0}")]
    File(#[from] io::Error),
    /// The table cannot be read or written.
    #[error("table of images: {0}")]
    Table(#[from] rusqlite::Error),
    /// The system has no randomness.
    #[error("no temporary file can be named: {0}")]
    Random(getrandom::Error),
}

/// All images. Clones share them.
#[derive(Clone)]
pub struct Images(Arc<Parts>);

struct Parts {
    folder: PathBuf,
    limits: ImageLimits,
    table: Mutex<Connection>,
    /// By the first eight bytes of their digests.
    loaded: RwLock<HashMap<u64, Loaded>>,
    uploads: AtomicUsize,
}

struct Loaded {
    digest: Digest,
    bytes: Arc<[u8]>,
    users: usize,
}

/// An image on its way to the disk. Dropping it discards what arrived.
pub struct Upload {
    slot: Slot,
    path: PathBuf,
    file: Option<File>,
    context: Context,
    bytes: u64,
}

/// The right to one upload; given back when dropped.
struct Slot(Images);

impl Slot {
    fn take(images: &Images) -> Option<Self> {
        let one_more = |count| (count < UPLOADS_MAX).then_some(count + 1);
        let counted = images.0.uploads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        counted.ok().map(|_| Self(images.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.uploads.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { bytes_max: 64 << 20, images_max: 200, loaded_bytes_max: 512 << 20 }
    }
}

impl Digest {
    /// Of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_slice(digest(&SHA256, bytes).as_ref())
    }

    fn from_slice(slice: &[u8]) -> Self {
        let mut bytes = [0; 32];
        // SHA-256 has 32 bytes.
        bytes.iter_mut().zip(slice).for_each(|(byte, found)| *byte = *found);
        Self(bytes)
    }

    /// How devices name the image: its first digits.
    pub fn name(self) -> String {
        let mut text = self.to_string();
        text.truncate(NAME_CHARS);
        text
    }

    fn key(self) -> u64 {
        self.0.iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseDigestError);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| ParseDigestError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| ParseDigestError)?;
        }
        Ok(Self(bytes))
    }
}

impl Images {
    /// The images in `folder`, which is made where it is missing. What earlier uploads left
    /// behind is removed.
    pub(crate) fn open(
        folder: PathBuf,
        limits: ImageLimits,
        table: Connection,
    ) -> Result<Self, ImageError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        for entry in fs::read_dir(&folder)?.flatten() {
            if entry.path().extension().is_some_and(|ending| ending == "part") {
                fs::remove_file(entry.path())?;
            }
        }
        let (table, loaded) = (Mutex::new(table), RwLock::default());
        let uploads = AtomicUsize::new(0);
        Ok(Self(Arc::new(Parts { folder, limits, table, loaded, uploads })))
    }

    /// The limits.
    pub fn limits(&self) -> ImageLimits {
        self.0.limits
    }

    /// Begins an upload. Blocks.
    pub fn upload(&self) -> Result<Upload, ImageError> {
        let slot = Slot::take(self).ok_or(ImageError::Busy)?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(ImageError::Random)?;
        let path = self.0.folder.join(format!("{:016x}.part", u64::from_be_bytes(random)));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let context = Context::new(&SHA256);
        Ok(Upload { slot, path, file: Some(file), context, bytes: 0 })
    }

    /// All images, the newest first. Blocks.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        Ok(table::list(&self.table())?)
    }

    /// One image. Blocks.
    pub fn find(&self, digest: Digest) -> Result<Image, ImageError> {
        table::find(&self.table(), digest)?.ok_or(ImageError::Unknown(digest))
    }

    /// Removes an image that no job uses. Blocks.
    pub fn delete(&self, digest: Digest) -> Result<(), ImageError> {
        // The table is held so that no job takes the image up in between.
        let table = self.table();
        if table::find(&table, digest)?.is_none() {
            return Err(ImageError::Unknown(digest));
        }
        if self.is_loaded(digest) || table::is_used(&table, digest)? {
            return Err(ImageError::InUse(digest));
        }
        table::remove(&table, digest)?;
        // A file that stays behind without a row is written over by the next upload of it.
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The image that devices call `name`, for as long as a job uses it. Never blocks on a file.
    pub fn serve(&self, name: &str) -> Option<Arc<[u8]>> {
        let is_name = name.len() == NAME_CHARS && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let key = u64::from_str_radix(name, 16).ok().filter(|_| is_name)?;
        let loaded = self.0.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.get(&key).map(|loaded| Arc::clone(&loaded.bytes))
    }

    /// Brings an image into memory for one more job, after checking its digest. Blocks.
    pub(crate) fn take_up(&self, digest: Digest) -> Result<Arc<[u8]>, ImageError> {
        // Held to the end, so that nobody deletes the image in between.
        let table = self.table();
        let image = table::find(&table, digest)?.ok_or(ImageError::Unknown(digest))?;
        let mut loaded = self.0.loaded.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = loaded.get_mut(&digest.key()) {
            if known.digest != digest {
                return Err(ImageError::InUse(known.digest));
            }
            known.users += 1;
            return Ok(Arc::clone(&known.bytes));
        }
        let in_memory: u64 = loaded.values().map(|loaded| loaded.bytes.len() as u64).sum();
        if in_memory + image.bytes > self.0.limits.loaded_bytes_max {
            return Err(ImageError::MemoryFull(self.0.limits.loaded_bytes_max));
        }
        drop(loaded);
        let bytes = self.read(&image)?;
        let mut loaded = self.0.loaded.write().unwrap_or_else(PoisonError::into_inner);
        let entry = loaded.entry(digest.key()).or_insert(Loaded { digest, bytes, users: 0 });
        entry.users += 1;
        Ok(Arc::clone(&entry.bytes))
    }

    /// One job less uses it.
    pub(crate) fn put_down(&self, digest: Digest) {
        let mut loaded = self.0.loaded.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = loaded.get_mut(&digest.key()) {
            known.users = known.users.saturating_sub(1);
            if known.users == 0 {
                loaded.remove(&digest.key());
            }
        }
    }

    fn read(&self, image: &Image) -> Result<Arc<[u8]>, ImageError> {
        let damaged = ImageError::Damaged(image.digest);
        let path = self.path(image.digest);
        match fs::metadata(&path) {
            Ok(found) if found.len() == image.bytes => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => return Err(damaged),
        }
        let bytes = fs::read(&path)?;
        if Digest::of(&bytes) == image.digest { Ok(bytes.into()) } else { Err(damaged) }
    }

    fn is_loaded(&self, digest: Digest) -> bool {
        let loaded = self.0.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.get(&digest.key()).is_some_and(|loaded| loaded.digest == digest)
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.0.folder.join(digest.to_string())
    }

    fn table(&self) -> MutexGuard<'_, Connection> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    /// Takes the next bytes. Blocks.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.bytes += bytes.len() as u64;
        let bytes_max = self.slot.0.0.limits.bytes_max;
        if self.bytes > bytes_max {
            return Err(ImageError::TooLarge(bytes_max));
        }
        self.context.update(bytes);
        let file = self.file.as_mut().ok_or_else(closed)?;
        Ok(file.write_all(bytes)?)
    }

    /// Keeps what arrived; durable when it returns. `announced` is checked where the user gave
    /// it. The same image once more is no error, and mends a damaged file: the answer says whether
    /// the image is new. Blocks.
    pub fn finish(
        mut self,
        (name, version): (&str, Option<&str>),
        announced: Option<Digest>,
        now: Timestamp,
    ) -> Result<(Image, bool), ImageError> {
        let file = self.file.take().ok_or_else(closed)?;
        if self.bytes == 0 {
            return Err(ImageError::Empty);
        }
        let found = Digest::from_slice(self.context.clone().finish().as_ref());
        if let Some(announced) = announced.filter(|announced| *announced != found) {
            return Err(ImageError::OtherDigest { found, announced });
        }
        file.sync_all()?;
        let images = self.slot.0.clone();
        let table = images.table();
        let known = table::find(&table, found)?;
        if let Some(known) = &known
            && (known.name != name || known.version.as_deref() != version)
        {
            let Image { name, version, .. } = known.clone();
            return Err(ImageError::Exists { name, version });
        }
        let limit = images.0.limits.images_max;
        if known.is_none() && table::count(&table)? >= limit {
            return Err(ImageError::Full(limit));
        }
        fs::rename(&self.path, images.path(found))?;
        sync_folder(&images.0.folder)?;
        if let Some(known) = known {
            return Ok((known, false));
        }
        let (name, version) = (name.to_owned(), version.map(ToOwned::to_owned));
        let image = Image { digest: found, name, version, bytes: self.bytes, created: now };
        table::add(&table, &image)?;
        Ok((image, true))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Gone where it was renamed; else removed at the next start at the latest.
        let _ = fs::remove_file(&self.path);
    }
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// The name of a file is durable when its folder is.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use state::StateFile;

    struct World {
        folder: tempfile::TempDir,
        images: Images,
    }

    fn open(folder: &Path, limits: ImageLimits) -> Images {
        let file = StateFile::new(folder.join("firmware.db"));
        let table = file.open(crate::table::MIGRATIONS).unwrap();
        Images::open(folder.join("firmware"), limits, table).unwrap()
    }

    fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        let limits = ImageLimits { bytes_max: 100, images_max: 2, loaded_bytes_max: 150 };
        let images = open(folder.path(), limits);
        World { folder, images }
    }

    fn put(images: &Images, bytes: &[u8]) -> Result<(Image, bool), ImageError> {
        let mut upload = images.upload()?;
        bytes.chunks(7).try_for_each(|piece| upload.write(piece))?;
        upload.finish(("modem", Some("2.0")), None, Timestamp::EPOCH)
    }

    fn files(world: &World) -> usize {
        fs::read_dir(world.folder.path().join("firmware")).unwrap().count()
    }

    #[test]
    fn an_image_is_kept_under_its_digest_and_served_while_it_is_used() {
        let world = world();
        let (image, is_new) = put(&world.images, b"firmware").unwrap();
        assert!(is_new && !put(&world.images, b"firmware").unwrap().1);
        let digest = image.digest;
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!(digest.to_string().starts_with(&digest.name()));
        assert!(world.images.serve(&digest.name()).is_none());
        let held = world.images.take_up(digest).unwrap();
        let served = world.images.serve(&digest.name()).unwrap();
        assert!(Arc::ptr_eq(&held, &served));
        assert!(world.images.serve("+000000000000000").is_none());
        assert!(matches!(world.images.delete(digest), Err(ImageError::InUse(_))));
        world.images.put_down(digest);
        assert!(world.images.serve(&digest.name()).is_none());
        world.images.delete(digest).unwrap();
        assert!(matches!(world.images.delete(digest), Err(ImageError::Unknown(_))));
        assert_eq!(files(&world), 0);
    }

    #[test]
    fn what_is_not_as_announced_leaves_nothing_behind() {
        let world = world();
        let mut upload = world.images.upload().unwrap();
        upload.write(b"firmwarf").unwrap();
        let announced = Some(Digest::of(b"firmware"));
        let refused = upload.finish(("modem", None), announced, Timestamp::EPOCH);
        assert!(matches!(refused, Err(ImageError::OtherDigest { .. })));
        assert!(matches!(put(&world.images, b""), Err(ImageError::Empty)));
        assert!(matches!(put(&world.images, &[0; 101]), Err(ImageError::TooLarge(100))));
        let many: Vec<_> = (0..UPLOADS_MAX).map(|_| world.images.upload().unwrap()).collect();
        assert!(matches!(world.images.upload(), Err(ImageError::Busy)));
        drop(many);
        assert_eq!((files(&world), world.images.list().unwrap().len()), (0, 0));
    }

    #[test]
    fn limits_hold() {
        let world = world();
        let one = put(&world.images, &[1; 100]).unwrap().0.digest;
        let two = put(&world.images, &[2; 100]).unwrap().0.digest;
        assert!(matches!(put(&world.images, b"three"), Err(ImageError::Full(2))));
        world.images.take_up(one).unwrap();
        world.images.take_up(one).unwrap();
        assert!(matches!(world.images.take_up(two), Err(ImageError::MemoryFull(150))));
        world.images.put_down(one);
        assert!(world.images.serve(&one.name()).is_some());
        world.images.put_down(one);
        world.images.take_up(two).unwrap();
    }

    #[test]
    fn a_damaged_file_is_found_and_mended_by_the_same_upload() {
        let world = world();
        let digest = put(&world.images, b"firmware").unwrap().0.digest;
        let path = world.images.path(digest);
        for damage in [Some(&b"firmwarf"[..]), Some(b"firm"), None] {
            match damage {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            assert!(matches!(world.images.take_up(digest), Err(ImageError::Damaged(_))));
            assert!(!put(&world.images, b"firmware").unwrap().1);
            world.images.take_up(digest).unwrap();
            world.images.put_down(digest);
        }
    }

    #[test]
    fn a_start_removes_halves_and_keeps_images() {
        let world = world();
        let digest = put(&world.images, b"firmware").unwrap().0.digest;
        let mut upload = world.images.upload().unwrap();
        upload.write(b"half").unwrap();
        std::mem::forget(upload);
        assert_eq!(files(&world), 2);
        let images = open(world.folder.path(), ImageLimits::default());
        assert_eq!(files(&world), 1);
        assert_eq!(images.find(digest).unwrap().bytes, 8);
    }
}
