//! A file in Rust, seen closely enough for the rules: its code with comments and literals blanked
//! out, which lines are test code, and where functions begin and end. Not a parser: it trusts that
//! the file compiles.

use std::ops::RangeInclusive;

/// One file in Rust.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments and the inside of literals replaced by blanks, line by line alike.
    pub(crate) code: String,
    test_lines: Vec<RangeInclusive<usize>>,
}

/// A function: its name and the lines from `fn` to the closing brace, counted from 1.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl Source {
    /// Looks at `text`.
    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let code = blank(text);
        let test_lines = test_lines(&code);
        Self { path: path.to_owned(), text: text.to_owned(), code, test_lines }
    }

    /// Lines of code, numbered from 1, comments and literals blanked.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Whether the whole file is test code: by its name, or because it lies in a tests folder.
    pub(crate) fn is_test_file(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
            || self.path.starts_with("tests/")
            || self.path.contains("/tests/")
    }

    /// Whether the line belongs to `#[cfg(test)]`.
    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        self.is_test_file() || self.test_lines.iter().any(|lines| lines.contains(&line))
    }

    /// The number of lines outside `#[cfg(test)]`.
    pub(crate) fn lines_without_tests(&self) -> usize {
        let tests: usize = self.test_lines.iter().map(|lines| lines.clone().count()).sum();
        self.text.lines().count() - tests
    }

    /// Every function with a body.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let code = self.code.as_bytes();
        let mut functions = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            if at > 0 && is_word(code[at - 1]) {
                continue;
            }
            let name: String = self.code[at + 3..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if let Some((_, end)) = block_after(code, at)
                && !name.is_empty()
            {
                let first = line_of(&self.code, at);
                functions.push(Function { name, first, last: line_of(&self.code, end) });
            }
        }
        functions
    }
}

/// Whether `word` stands in `line` with no letter, digit or underscore at either end of it.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let bytes = line.as_bytes();
    let ends_in_word = word.bytes().next_back().is_some_and(is_word);
    let begins_with_word = word.bytes().next().is_some_and(is_word);
    line.match_indices(word).any(|(at, _)| {
        let after = at + word.len();
        let cut_before = begins_with_word && at > 0 && is_word(bytes[at - 1]);
        let cut_after = ends_in_word && after < bytes.len() && is_word(bytes[after]);
        !cut_before && !cut_after
    })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].bytes().filter(|byte| *byte == b'\n').count() + 1
}

/// The first `{…}` after `at`, as the positions of its braces, unless a `;` ends the item before.
fn block_after(code: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut inside_brackets = 0_usize;
    let mut depth = 0_usize;
    let mut opened = None;
    for (index, byte) in code.iter().enumerate().skip(at) {
        match (byte, opened) {
            (b'(' | b'[', None) => inside_brackets += 1,
            (b')' | b']', None) => inside_brackets = inside_brackets.saturating_sub(1),
            (b';', None) if inside_brackets == 0 => return None,
            (b'{', _) if opened.is_some() || inside_brackets == 0 => {
                opened = opened.or(Some(index));
                depth += 1;
            }
            (b'}', Some(start)) => {
                depth -= 1;
                if depth == 0 {
                    return Some((start, index));
                }
            }
            _ => {}
        }
    }
    None
}

/// The lines of every item under `#[cfg(test)]`, the attribute included.
fn test_lines(code: &str) -> Vec<RangeInclusive<usize>> {
    let mut found: Vec<RangeInclusive<usize>> = Vec::new();
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        let first = line_of(code, at);
        if found.last().is_some_and(|lines| lines.contains(&first)) {
            continue;
        }
        let after = at + attribute.len();
        let end = block_after(code.as_bytes(), after)
            .map(|(_, end)| end)
            .or_else(|| code[after..].find(';').map(|offset| after + offset))
            .unwrap_or(code.len());
        found.push(first..=line_of(code, end));
    }
    found
}

/// Replaces comments and the inside of string and character literals by blanks.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after_word = code.bytes().next_back().is_some_and(is_word);
        let length = comment(rest)
            .or_else(|| if after_word { None } else { raw_string(rest) })
            .or_else(|| string(rest))
            .or_else(|| character(rest));
        match length {
            Some(length) => {
                code.extend(rest[..length].chars().map(|c| if c == '\n' { c } else { ' ' }));
                rest = &rest[length..];
            }
            None => {
                code.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    code
}

/// The length of the comment `rest` begins with; block comments nest.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    Some(rest.len())
}

/// The length of the raw string (`r"…"`, `br#"…"#`) that `rest` begins with.
fn raw_string(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inside = body[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let before = rest.len() - inside.len();
    Some(inside.find(&close).map_or(rest.len(), |at| before + at + close.len()))
}

/// The length of the string literal that `rest` begins with.
fn string(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('"')?;
    Some(closing(inside, '"').map_or(rest.len(), |at| at + 2))
}

/// The length of the character literal that `rest` begins with; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    let first = inside.chars().next()?;
    if first == '\\' {
        return closing(inside, '\'').map(|at| at + 2);
    }
    let length = first.len_utf8();
    inside[length..].starts_with('\'').then_some(length + 2)
}

/// Where `quote` stands unescaped in `inside`.
fn closing(inside: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        if !escaped && c == quote {
            return Some(at);
        }
        escaped = !escaped && c == '\\';
    }
    None
}

#[test]
fn comments_and_literals_are_blanked() {
    let cases = [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ */ d", "a                 d"),
        ("f(\"{ \\\" }\") g", "f(        ) g"),
        ("r#\"{\"#; x", "      ; x"),
        ("'{' 'a '\\'' <'a>", "    'a      <'a>"),
        ("bar\"}\"", "bar   "),
    ];
    for (text, code) in cases {
        assert_eq!(blank(text), code, "{text}");
    }
}

#[test]
fn functions_and_test_lines_are_found() {
    let text = "fn a(x: [u8; 2]) {\n  \"}\";\n}\ntrait T { fn b(); }\n\
                #[cfg(test)]\nmod tests {\n  fn c() {}\n}\n#[cfg(test)]\nuse x;\nfn d() {}\n";
    let source = Source::parse("a.rs", text);
    let functions: Vec<_> =
        source.functions().into_iter().map(|f| (f.name, f.first, f.last)).collect();
    let expected = [("a", 1, 3), ("c", 7, 7), ("d", 11, 11)];
    assert_eq!(functions, expected.map(|(name, first, last)| (name.to_owned(), first, last)));
    let tests: Vec<_> = (1..=11).filter(|line| source.is_test_line(*line)).collect();
    assert_eq!(tests, [5, 6, 7, 8, 9, 10]);
    assert_eq!(source.lines_without_tests(), 5);
}

#[test]
fn words_are_whole() {
    assert!(has_word("use tokio::net", "tokio"));
    assert!(has_word("tokio", "tokio"));
    assert!(!has_word("not_tokio tokio2", "tokio"));
    assert!(has_word("x.elapsed()", ".elapsed("));
}
