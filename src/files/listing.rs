//! What is in a directory, as a page for people or as JSON for programs. Only what would also be served is listed. Which
//! directories are listed is decided in `files`.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt::Write;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{self, HeaderMap};
use http::uri::PathAndQuery;
use httpdate::HttpDate;

use super::resolve::Folder;
use crate::clock;
use crate::message::accept;
use crate::message::error_pages::escape;
use crate::message::path::RequestPath;

/// The most entries of one listing.
const MOST: usize = 10_000;
/// The most entries that are looked at for one.
const MOST_READ: usize = 100_000;

/// The style of the page. The page may load nothing, and its policy allows this text alone.
const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#f7f8fa;--card:#fff;--edge:#dfe3ea;--ink:#171b24;--soft:#586073;--mark:#3b5bdb;--over:#eef1f7}\
@media(prefers-color-scheme:dark){:root{--paper:#0f1218;--card:#171b23;--edge:#2a303c;--ink:#e9ecf2;--soft:#9aa3b5;--mark:#8ba3ff;--over:#1f2530}}\
*{box-sizing:border-box}\
body{margin:0;padding:1.5rem 1rem;background:var(--paper);color:var(--ink);font:1rem/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,sans-serif}\
main{max-width:60rem;margin:0 auto}\
h1{margin:0 0 1rem;font-size:1.375rem;line-height:1.3;font-weight:650;overflow-wrap:anywhere}\
table{width:100%;border-collapse:collapse;background:var(--card);border:1px solid var(--edge);border-radius:.75rem;overflow:hidden}\
caption{caption-side:bottom;padding:.75rem 0;text-align:left;font-size:.875rem;color:var(--soft)}\
th,td{padding:.5rem .75rem;border-bottom:1px solid var(--edge);text-align:left;font-weight:400;vertical-align:baseline}\
thead th{font-size:.875rem;font-weight:600}\
tbody tr:last-child>*{border-bottom:0}\
tbody tr:hover{background:var(--over)}\
th[scope=row]{width:100%;overflow-wrap:anywhere}\
td{white-space:nowrap;color:var(--soft);font-variant-numeric:tabular-nums}\
td:nth-child(2),th:nth-child(2){text-align:right}\
a{color:var(--mark);text-decoration:none}\
a:hover{text-decoration:underline}\
a:focus-visible{outline:2px solid var(--mark);outline-offset:2px}\
@media(max-width:34rem){body{padding:1rem .5rem}th,td{padding:.5rem}time span{display:none}}";
/// The policy of the page; the digest is the style's.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'sha256-23yHCI6JKoYk3wKjM5Matl/uMMPrpNRynm/wLU5d6rE='; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// What a listing is sorted by. Directories come first in any case.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Column {
    Name,
    Size,
    Time,
}

impl Column {
    const ALL: [Self; 3] = [Self::Name, Self::Size, Self::Time];

    fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Size => "size",
            Self::Time => "time",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Name => "Name",
            Self::Size => "Size",
            Self::Time => "Modified",
        }
    }
}

/// The order of a listing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Order {
    by: Column,
    descends: bool,
}

impl Order {
    /// The order that a query asks for by `sort` and `order`; what it does not say, or says in other words, is by name,
    /// ascending.
    pub(super) fn of(query: Option<&str>) -> Self {
        let mut order = Self {
            by: Column::Name,
            descends: false,
        };
        for pair in query.unwrap_or_default().split('&') {
            match pair.split_once('=') {
                Some(("sort", word)) => {
                    let named = Column::ALL.into_iter().find(|column| column.word() == word);
                    order.by = named.unwrap_or(Column::Name);
                }
                Some(("order", word)) => order.descends = word == "desc",
                Some(_) | None => {}
            }
        }
        order
    }

    fn compare(self, one: &Entry, other: &Entry) -> Ordering {
        let by_name = || (&one.folded, &one.name).cmp(&(&other.folded, &other.name));
        let order = match self.by {
            Column::Name => by_name(),
            // Directories have no size.
            Column::Size => (one.size.cmp(&other.size)).then_with(by_name),
            Column::Time => (one.modified.cmp(&other.modified)).then_with(by_name),
        };
        let order = if self.descends {
            order.reverse()
        } else {
            order
        };
        other.is_directory.cmp(&one.is_directory).then(order)
    }
}

/// The form of a listing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// A page.
    Html,
    /// nginx's JSON.
    Json,
}

impl Form {
    /// The form that a client prefers; a page where it likes both equally.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let html = preference(headers, b"text", b"html");
        let json = preference(headers, b"application", b"json");
        if json > html { Self::Json } else { Self::Html }
    }

    /// Its media type.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
        }
    }
}

/// How much a client likes a media type (RFC 9110 section 12.5.1), in thousandths: the most specific range counts.
fn preference(headers: &HeaderMap, kind: &[u8], name: &[u8]) -> u16 {
    let mut found = None;
    for range in (headers.get_all(header::ACCEPT).iter())
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
    {
        let mut parts = range.split(|byte| *byte == b';');
        let media = parts.next().unwrap_or_default().trim_ascii();
        let Some(slash) = memchr::memchr(b'/', media) else {
            continue;
        };
        let (wide, narrow) = media.split_at_checked(slash).unwrap_or_default();
        let narrow = narrow.get(1..).unwrap_or_default();
        let is = |pattern: &[u8], text: &[u8]| pattern.eq_ignore_ascii_case(text);
        let specific = match (is(wide, kind), is(narrow, name)) {
            (true, true) => 2,
            (true, false) if narrow == b"*" => 1,
            (false, _) if wide == b"*" && narrow == b"*" => 0,
            _ => continue,
        };
        // Other parameters do not say which of the two is meant.
        let weight = parts.find_map(accept::quality).unwrap_or(1000);
        if found.is_none_or(|(known, _)| specific > known) {
            found = Some((specific, weight));
        }
    }
    found.map_or(0, |(_, weight)| weight)
}

/// What is in a directory.
#[derive(Debug)]
pub(super) struct Listing {
    entries: Vec<Entry>,
    /// Whether there are more.
    is_cut: bool,
}

#[derive(Debug)]
struct Entry {
    name: String,
    /// The name in lower case, to sort by.
    folded: String,
    is_directory: bool,
    size: u64,
    modified: u64,
}

impl Listing {
    /// Reads directories of one name below several roots, as one: what the first has, hides what others have. Blocks.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub(super) fn read(folders: &[Folder]) -> io::Result<Self> {
        let mut listing = Self {
            entries: Vec::new(),
            is_cut: false,
        };
        let mut known = HashSet::new();
        let mut budget = MOST_READ;
        for (at, folder) in folders.iter().enumerate() {
            let more = at + 1 < folders.len();
            let is_whole = folder.each(&mut budget, |listed| {
                if listing.entries.len() == MOST {
                    return false;
                }
                let name = listed.name;
                // The most certain way to list nothing that is not served is to ask for it.
                if is_served(name) && (folders.len() == 1 || !known.contains(name)) {
                    if more {
                        known.insert(name.to_owned());
                    }
                    listing.entries.push(Entry {
                        name: name.to_owned(),
                        folded: name.to_lowercase(),
                        is_directory: listed.is_directory,
                        size: if listed.is_directory { 0 } else { listed.size },
                        modified: listed.modified,
                    });
                }
                true
            })?;
            listing.is_cut |= !is_whole;
        }
        Ok(listing)
    }

    /// The listing in a form and an order. `path` is the directory's, with a slash at its end; `is_top` that nothing
    /// above it is a directory of the route.
    ///
    /// # Errors
    /// A text cannot be written to, which never happens.
    pub(super) fn write(
        mut self,
        (form, order): (Form, Order),
        path: &str,
        is_top: bool,
    ) -> Result<String, std::fmt::Error> {
        self.entries.sort_by(|one, other| order.compare(one, other));
        let mut text = String::with_capacity(4096 + self.entries.len() * 256);
        match form {
            Form::Html => self.page(order, path, is_top, &mut text)?,
            Form::Json => self.json(&mut text)?,
        }
        Ok(text)
    }

    fn json(&self, text: &mut String) -> std::fmt::Result {
        text.push('[');
        for (at, entry) in self.entries.iter().enumerate() {
            let begin = if at == 0 { "\n" } else { ",\n" };
            let kind = if entry.is_directory {
                "directory"
            } else {
                "file"
            };
            let name = serde_json::Value::from(entry.name.as_str());
            let time = HttpDate::from(UNIX_EPOCH + Duration::from_secs(entry.modified));
            write!(
                text,
                "{begin}{{ \"name\":{name}, \"type\":\"{kind}\", \"mtime\":\"{time}\""
            )?;
            if !entry.is_directory {
                write!(text, ", \"size\":{}", entry.size)?;
            }
            text.push_str(" }");
        }
        text.push_str("\n]\n");
        Ok(())
    }

    fn page(&self, order: Order, path: &str, is_top: bool, text: &mut String) -> std::fmt::Result {
        let mut shown = String::new();
        escape(path, &mut shown);
        write!(
            text,
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>Index of {shown}</title>\n<style>{STYLE}</style>\n\
             <main>\n<h1>Index of {shown}</h1>\n<table>\n<caption>{}</caption>\n<thead><tr>",
            self.count()
        )?;
        for column in Column::ALL {
            let is_sorted = order.by == column;
            let sorted = match (is_sorted, order.descends) {
                (false, _) => "",
                (true, false) => " aria-sort=\"ascending\"",
                (true, true) => " aria-sort=\"descending\"",
            };
            let other = if is_sorted && !order.descends {
                "desc"
            } else {
                "asc"
            };
            let (word, title) = (column.word(), column.title());
            write!(
                text,
                "<th scope=\"col\"{sorted}><a href=\"?sort={word}&amp;order={other}\">{title}</a></th>"
            )?;
        }
        text.push_str("</tr></thead>\n<tbody>\n");
        if !is_top {
            text.push_str("<tr><th scope=\"row\"><a href=\"../\">Parent directory</a></th><td></td><td></td></tr>\n");
        }
        for entry in &self.entries {
            entry.row(text)?;
        }
        text.push_str("</tbody>\n</table>\n</main>\n</html>\n");
        Ok(())
    }

    /// How many entries there are, in words.
    fn count(&self) -> String {
        let directories = self.entries.iter().filter(|entry| entry.is_directory);
        let directories = directories.count();
        let files = self.entries.len() - directories;
        let of = |count: usize, one: &str, more: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {more}"),
        };
        let mut words = format!(
            "{}, {}",
            of(directories, "directory", "directories"),
            of(files, "file", "files")
        );
        if self.is_cut {
            words.push_str(". There are more: only so many are shown.");
        }
        words
    }
}

impl Entry {
    fn row(&self, text: &mut String) -> std::fmt::Result {
        let slash = if self.is_directory { "/" } else { "" };
        let mut shown = String::with_capacity(self.name.len());
        escape(&self.name, &mut shown);
        write!(
            text,
            "<tr><th scope=\"row\"><a href=\"./{}{slash}\">{shown}{slash}</a></th>",
            Escaped(&self.name)
        )?;
        if self.is_directory {
            text.push_str("<td></td>");
        } else {
            write!(
                text,
                "<td title=\"{} bytes\">{}</td>",
                self.size,
                Size(self.size)
            )?;
        }
        let (year, month, day, hour, minute, second) = clock::civil(self.modified);
        writeln!(
            text,
            "<td><time datetime=\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z\">\
             {year:04}-{month:02}-{day:02} <span>{hour:02}:{minute:02}</span></time></td></tr>"
        )
    }
}

/// Whether the file of a name in a directory would be found by its address.
fn is_served(name: &str) -> bool {
    let target = format!("/{}", Escaped(name));
    let Ok(target) = target.parse::<PathAndQuery>() else {
        return false;
    };
    RequestPath::parse(&target).is_ok_and(|path| path.file_after(0) == Ok(name))
}

/// A name as a segment of a URL.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.0.bytes() {
            match byte {
                b'-' | b'.' | b'_' | b'~' => f.write_char(char::from(byte))?,
                byte if byte.is_ascii_alphanumeric() => f.write_char(char::from(byte))?,
                byte => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

/// A length for people.
struct Size(u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut tenths = u128::from(self.0) * 10 / 1024;
        let mut units = UNITS.iter().peekable();
        while let Some(unit) = units.next() {
            if tenths < 10_240 || units.peek().is_none() {
                return match tenths {
                    ..100 => write!(f, "{}.{} {unit}", tenths / 10, tenths % 10),
                    _ => write!(f, "{} {unit}", tenths / 10),
                };
            }
            tenths /= 1024;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, is_directory: bool, size: u64, modified: u64) -> Entry {
        Entry {
            name: name.to_owned(),
            folded: name.to_lowercase(),
            is_directory,
            size,
            modified,
        }
    }

    fn listing(entries: Vec<Entry>) -> Listing {
        Listing {
            entries,
            is_cut: false,
        }
    }

    fn page(entries: Vec<Entry>, query: Option<&str>) -> String {
        let order = Order::of(query);
        let page = listing(entries).write((Form::Html, order), "/files/", false);
        page.unwrap()
    }

    #[test]
    fn the_policy_allows_the_style_and_nothing_else() {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes());
        let source = format!("style-src 'sha256-{}'", STANDARD.encode(hash));
        assert!(POLICY.contains(&source), "{source}");
        assert!(POLICY.starts_with("default-src 'none'; "));
        let page = page(vec![entry("a", false, 1, 1)], None);
        assert!(!page.contains("<script") && !page.contains(" style=") && !page.contains(" on"));
    }

    #[test]
    fn directories_come_first_in_every_order() {
        let entries = || {
            vec![
                entry("b.txt", false, 30, 20),
                entry("Z", true, 0, 50),
                entry("C.txt", false, 10, 40),
                entry("a.txt", false, 20, 30),
                entry("d", true, 0, 10),
            ]
        };
        for (query, expected) in [
            (None, "d Z a.txt b.txt C.txt"),
            (Some("sort=name&order=desc"), "Z d C.txt b.txt a.txt"),
            (Some("sort=size"), "d Z C.txt a.txt b.txt"),
            (Some("order=desc&sort=size"), "Z d b.txt a.txt C.txt"),
            (Some("sort=time&order=asc"), "d Z b.txt a.txt C.txt"),
            (Some("sort=time&order=desc"), "Z d C.txt a.txt b.txt"),
            (Some("sort=%00&order=<script>"), "d Z a.txt b.txt C.txt"),
        ] {
            let page = page(entries(), query);
            let rows = page.split("<th scope=\"row\">").skip(2);
            let names: Vec<_> = rows
                .map(|row| row.split(['>', '<']).nth(2).unwrap().trim_end_matches('/'))
                .collect();
            assert_eq!(names.join(" "), expected, "{query:?}");
        }
        let page = page(entries(), Some("sort=size"));
        assert!(
            page.contains("aria-sort=\"ascending\"><a href=\"?sort=size&amp;order=desc\">Size")
        );
        assert!(page.contains("<th scope=\"col\"><a href=\"?sort=name&amp;order=asc\">Name"));
        assert!(page.contains("<caption>2 directories, 3 files</caption>"));
    }

    #[test]
    fn names_are_text_and_addresses_below_the_directory() {
        for (name, shown, address) in [
            (
                "<b>&\"'.txt",
                "&lt;b&gt;&amp;&quot;&#39;.txt",
                "%3Cb%3E%26%22%27.txt",
            ),
            (
                "javascript:alert(1)",
                "javascript:alert(1)",
                "javascript%3Aalert%281%29",
            ),
            ("a b#c?d%41.txt", "a b#c?d%41.txt", "a%20b%23c%3Fd%2541.txt"),
            ("/", "/", "%2F"),
            ("\u{444}", "\u{444}", "%D1%84"),
        ] {
            let page = page(vec![entry(name, false, 1536, 0)], None);
            let row =
                format!("<a href=\"./{address}\">{shown}</a></th><td title=\"1536 bytes\">1.5 KiB");
            assert!(page.contains(&row), "{row}\n{page}");
        }
        for (name, expected) in [
            ("a b#c?d%41;x.txt", true),
            (".well-known", true),
            ("back\\slash", false),
            ("..", false),
            (".", false),
        ] {
            assert_eq!(is_served(name), expected, "{name}");
        }
    }

    #[test]
    fn lengths_are_short() {
        for (size, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (10_239, "9.9 KiB"),
            (10_240, "10 KiB"),
            (1_048_575, "1023 KiB"),
            (1_048_576, "1.0 MiB"),
            (5_500_000_000, "5.1 GiB"),
            (u64::MAX, "15 EiB"),
        ] {
            assert_eq!(Size(size).to_string(), expected);
        }
    }

    #[test]
    fn programs_get_json() {
        for (accept, expected) in [
            (vec![], Form::Html),
            (vec!["*/*"], Form::Html),
            (vec!["application/json"], Form::Json),
            (vec!["Application/JSON"], Form::Json),
            (vec!["application/*"], Form::Json),
            (vec!["text/html, application/json"], Form::Html),
            (vec!["text/html;q=0.5, application/json;q=0.6"], Form::Json),
            (vec!["text/html;q=0.5", "application/json"], Form::Json),
            (vec!["text/html;q=0, */*"], Form::Json),
            (vec!["application/json;q=0.1, */*;q=0.5"], Form::Html),
            (
                vec!["application/json; charset=utf-8; q=0.9, text/html;q=0.8"],
                Form::Json,
            ),
            (
                vec!["application/jsonp", "json", "/", "", ";q=1"],
                Form::Html,
            ),
        ] {
            let mut headers = HeaderMap::new();
            for line in &accept {
                headers.append(header::ACCEPT, line.parse().unwrap());
            }
            assert_eq!(Form::of(&headers), expected, "{accept:?}");
        }
        let entries = vec![
            entry("a\"\n.txt", false, 12, 784_111_777),
            entry("b", true, 0, 784_111_777),
        ];
        let order = Order::of(None);
        let text = listing(entries)
            .write((Form::Json, order), "/", true)
            .unwrap();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        let time = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(
            read,
            serde_json::json!([
                {"name": "b", "type": "directory", "mtime": time},
                {"name": "a\"\n.txt", "type": "file", "mtime": time, "size": 12},
            ])
        );
        let none = listing(vec![])
            .write((Form::Json, order), "/", true)
            .unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&none).unwrap(),
            serde_json::json!([])
        );
    }

    proptest! {
        /// Whatever a file is called, its name adds no tags and no attributes to the page, and its address leads to it.
        #[test]
        fn a_name_is_never_markup(name in "[^/\\x00]{1,40}", path in "/[^\\x00]{0,20}") {
            let order = Order::of(None);
            let count = |name: &str, path: &str| {
                let page = listing(vec![entry(name, false, 1, 1)]);
                let page = page.write((Form::Html, order), path, true).unwrap();
                let of = |mark: char| page.matches(mark).count();
                (of('<'), of('>'), of('"'), page)
            };
            let (less, greater, quotes, page) = count(&name, &path);
            let (expected, _, _, _) = count("a", "/");
            prop_assert_eq!((less, greater, quotes), {
                let (less, greater, quotes, _) = count("a", "/");
                (less, greater, quotes)
            });
            prop_assert!(expected > 0);
            let address = page.split("<a href=\"./").nth(1).unwrap().split('"').next().unwrap();
            if is_served(&name) {
                let target = format!("/{address}").parse().unwrap();
                let parsed = RequestPath::parse(&target).unwrap();
                prop_assert_eq!(parsed.file_after(0), Ok(name.as_str()));
            }
        }
    }
}
