//! Power cuts without root: the preload library of `tests/powerloss`, and the exchange of the data
//! folder for what a disk would hold. What is modelled, and what is not, is said in the library.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::broker::Options;
use crate::{program, reaper};

/// The data folder of one broker, as the disk would have it.
#[derive(Clone, Debug)]
pub struct Power {
    folder: PathBuf,
    image: PathBuf,
}

impl Power {
    /// Options with which the broker's syncs are watched.
    pub fn watch(options: Options) -> (Options, Power) {
        let folder = options.folder().join("data");
        let image = options.folder().join("durable");
        let path = |path: &Path| path.display().to_string();
        let options = options
            .environment("LD_PRELOAD", &path(&LIBRARY))
            .environment("POWERLOSS_FOLDER", &path(&folder))
            .environment("POWERLOSS_IMAGE", &path(&image));
        (options, Power { folder, image })
    }

    /// After the broker was killed: the folder becomes what had been synced.
    pub fn cut(&self) {
        let objects = self.image.join(".objects");
        if !objects.join("complete").exists() {
            // Killed before it did anything, while the image was made: the folder is as it was.
            if self.image.exists() {
                remove(&self.image);
            }
            return;
        }
        remove(&self.folder);
        remove(&objects);
        let moved = std::fs::rename(&self.image, &self.folder);
        moved.unwrap_or_else(|error| panic!("{}: {error}", self.image.display()));
    }
}

fn remove(folder: &Path) {
    let removed = std::fs::remove_dir_all(folder);
    removed.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
}

/// The library, compiled once per test program.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let library = reaper::temporary_folder("powerloss").join("powerloss.so");
    let mut compile = Command::new("cc");
    compile.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O2", "-o"]);
    compile.arg(&library).arg(program::package_file("powerloss/powerloss.c"));
    compile.args(["-ldl", "-lpthread"]);
    let (status, output) = program::run_to_end(compile);
    assert!(status.success(), "cc: {status}\n{output}");
    library
});
