//! Which sign a file gets, by the end of its name.

/// What people tell files apart by; as text, the class in the page's style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Folder,
    Image,
    Video,
    Audio,
    Archive,
    Code,
    Text,
    File,
}

/// Longer than the longest end that we know.
const LONGEST: usize = 8;

impl Sign {
    /// That of a file.
    pub(super) fn of_file(name: &[u8]) -> Sign {
        let Some(dot) = name.iter().rposition(|&byte| byte == b'.') else { return Sign::File };
        let end = &name[dot + 1..];
        let mut lower = [0; LONGEST];
        let Some(lower) = lower.get_mut(..end.len()) else { return Sign::File };
        lower.copy_from_slice(end);
        lower.make_ascii_lowercase();
        match &*lower {
            b"png" | b"jpg" | b"jpeg" | b"gif" | b"webp" | b"avif" | b"svg" | b"ico" | b"bmp" | b"tif"
            | b"tiff" | b"heic" | b"jxl" | b"psd" | b"raw" | b"xcf" => Sign::Image,
            b"mp4" | b"mkv" | b"webm" | b"mov" | b"avi" | b"m4v" | b"mpg" | b"mpeg" | b"ogv" | b"wmv"
            | b"flv" | b"m3u8" => Sign::Video,
            b"mp3" | b"flac" | b"ogg" | b"oga" | b"opus" | b"wav" | b"m4a" | b"aac" | b"mid" | b"aiff"
            | b"wma" => Sign::Audio,
            b"zip" | b"tar" | b"gz" | b"tgz" | b"zst" | b"xz" | b"bz2" | b"7z" | b"rar" | b"br" | b"lz4"
            | b"deb" | b"rpm" | b"apk" | b"jar" | b"iso" | b"dmg" | b"img" | b"cab" | b"whl" | b"crate"
            | b"appimage" => Sign::Archive,
            b"rs" | b"c" | b"h" | b"cc" | b"cpp" | b"hpp" | b"go" | b"py" | b"js" | b"mjs" | b"ts"
            | b"tsx" | b"jsx" | b"java" | b"kt" | b"swift" | b"rb" | b"php" | b"pl" | b"lua" | b"sh"
            | b"bash" | b"zsh" | b"ps1" | b"bat" | b"sql" | b"html" | b"htm" | b"css" | b"scss" | b"vue"
            | b"json" | b"xml" | b"yaml" | b"yml" | b"toml" | b"ini" | b"conf" | b"cs" | b"zig" | b"hs"
            | b"ml" | b"ex" | b"erl" | b"clj" | b"r" | b"wasm" | b"proto" | b"diff" | b"patch" | b"nix"
            | b"tf" | b"map" => Sign::Code,
            b"txt" | b"md" | b"rst" | b"log" | b"csv" | b"tsv" | b"pdf" | b"doc" | b"docx" | b"odt"
            | b"rtf" | b"tex" | b"epub" | b"xls" | b"xlsx" | b"ods" | b"ppt" | b"pptx" | b"odp" | b"adoc"
            | b"org" | b"ics" | b"eml" => Sign::Text,
            _ => Sign::File,
        }
    }

    /// Its class.
    pub(super) fn class(self) -> &'static str {
        match self {
            Sign::Folder => "d",
            Sign::Image => "i",
            Sign::Video => "v",
            Sign::Audio => "a",
            Sign::Archive => "z",
            Sign::Code => "c",
            Sign::Text => "t",
            Sign::File => "f",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_go_by_the_end_of_names() {
        for (name, sign) in [
            ("a.PNG", Sign::Image),
            ("film.mkv", Sign::Video),
            ("a.b.flac", Sign::Audio),
            ("x.tar.gz", Sign::Archive),
            ("main.rs", Sign::Code),
            ("README.md", Sign::Text),
            ("LICENSE", Sign::File),
            ("a.", Sign::File),
            ("a.appimages", Sign::File),
        ] {
            assert_eq!(Sign::of_file(name.as_bytes()), sign, "{name}");
        }
    }
}
