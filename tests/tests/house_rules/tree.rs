//! The files the rules judge: the workspace as it lies on disk, or a few lines made up by a test.
//! Build products, stored data and git's own folder are not part of it.

use std::fs;
use std::path::Path;

use crate::source::Source;

/// Folders below the top that are not part of the project (see .gitignore).
const NOT_OURS: [&str; 4] = [".git", "target", "data", "node_modules"];

/// One text file, by its path from the top of the tree.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// The name without folders.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The folder it lies in; empty at the top.
    pub(crate) fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

/// All text files, and the parsed form of those in Rust.
pub(crate) struct Tree {
    files: Vec<File>,
    sources: Vec<Source>,
}

impl Tree {
    /// Reads the workspace this test was compiled in.
    pub(crate) fn of_the_workspace() -> Self {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = Vec::new();
        read_folder(&top, "", &mut files);
        Self::from_files(files)
    }

    /// A made-up tree.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() });
        Self::from_files(files.collect())
    }

    fn from_files(files: Vec<File>) -> Self {
        let rust = files.iter().filter(|file| file.path.ends_with(".rs"));
        let sources = rust.map(|file| Source::parse(&file.path, &file.text)).collect();
        Self { files, sources }
    }

    /// Every text file.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    /// Every file in Rust.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter()
    }

    /// Every package's manifest, parsed, with the workspace's own among them.
    pub(crate) fn manifests(&self) -> impl Iterator<Item = (&File, toml::Table)> {
        self.files.iter().filter(|file| file.name() == "Cargo.toml").map(|file| {
            let table = file.text.parse();
            (file, table.unwrap_or_else(|error| panic!("{}: {error}", file.path)))
        })
    }
}

fn read_folder(top: &Path, folder: &str, files: &mut Vec<File>) {
    let entries = fs::read_dir(top.join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap_or_else(|e| panic!("{folder}: {e}")))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect();
    names.sort();
    for (name, on_disk) in names {
        if NOT_OURS.contains(&name.as_str()) {
            continue;
        }
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        if on_disk.is_dir() {
            read_folder(top, &path, files);
        } else if let Ok(text) = fs::read_to_string(&on_disk) {
            files.push(File { path, text });
        }
    }
}
