use std::fs;
use std::path::PathBuf;

use super::*;

/// A scratch file that is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("penfold-table-{}-{name}", std::process::id()));
        fs::create_dir(&directory).expect("scratch directory");
        Self(directory)
    }

    fn path(&self) -> PathBuf {
        self.0.join("table")
    }

    fn write(&self, text: impl AsRef<[u8]>) {
        fs::write(self.path(), text).expect("write");
    }

    fn open(&self, required: bool) -> Result<Watched<Vec<u32>>, Vec<ConfigError>> {
        Watched::open(&Rights::Alone, &TableFile { path: self.path(), required }, numbers)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Reads a table of numbers, with one number on each line.
fn numbers(file: &Path, text: &str) -> Result<Vec<u32>, Vec<ConfigError>> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for line in lines(text) {
        match line.text.parse() {
            Ok(number) => good.push(number),
            Err(_) => bad.push(line.error(file, line.text, "expected a number")),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

fn refresh(watched: &Watched<Vec<u32>>) -> (Vec<u32>, Vec<String>) {
    let mut state = watched.state.lock().expect("lock");
    let errors = watched.refresh(&mut state);
    let name = format!("{}:", watched.path().display());
    (state.table.to_vec(), errors.iter().map(|e| e.to_string().replace(&name, "T:")).collect())
}

#[test]
fn a_table_follows_its_file() {
    let scratch = Scratch::new("follows");
    scratch.write("1\n# two\n\n3\n");
    let watched = scratch.open(true).expect("good");
    let before = watched.current();
    assert_eq!(*before, [1, 3]);
    // The new text has the same size, and the file system's clock has not ticked between the two
    // writes.
    scratch.write("4\n# two\n\n5\n");
    assert_eq!(*watched.current(), [4, 5]);
    assert_eq!(*before, [1, 3], "a caller keeps its table");
}

#[test]
fn a_file_replaced_by_an_older_one_is_read() {
    let scratch = Scratch::new("replaced");
    let old = SystemTime::now() - Duration::from_secs(3600);
    let write = |path: &Path, text: &str| {
        fs::write(path, text).expect("write");
        File::options().write(true).open(path).expect("open").set_modified(old).expect("set time");
    };
    write(&scratch.path(), "1\n");
    let watched = scratch.open(true).expect("good");
    assert_eq!(refresh(&watched), (vec![1], vec![]));
    assert!(!watched.state.lock().expect("lock").unsettled, "an old file is not read at each use");
    write(&scratch.0.join("other"), "2\n");
    fs::rename(scratch.0.join("other"), scratch.path()).expect("rename");
    assert_eq!(*watched.current(), [2]);
}

#[test]
fn errors_leave_the_old_table_and_are_logged_once() {
    let scratch = Scratch::new("bad-edit");
    scratch.write("1\n");
    let watched = scratch.open(true).expect("good");
    scratch.write("2\nx\ny\n");
    let both = ["T:2:1: expected a number", "T:3:1: expected a number"].map(str::to_owned).to_vec();
    assert_eq!(refresh(&watched), (vec![1], both));
    assert_eq!(refresh(&watched), (vec![1], vec![]));
    scratch.write(b"2\n3\xff\n");
    assert_eq!(refresh(&watched), (vec![1], vec!["T:2:1: expected a number".to_owned()]));
    scratch.write("22\nx\n");
    assert_eq!(refresh(&watched).1.len(), 1);
    scratch.write("2\nx\n");
    assert_eq!(refresh(&watched).1.len(), 1, "a change that did not mend it");
    scratch.write("7\n");
    assert_eq!(refresh(&watched), (vec![7], vec![]));
}

#[test]
fn a_removed_file_leaves_its_table() {
    for required in [true, false] {
        let scratch = Scratch::new(&format!("goes-{required}"));
        scratch.write("1\n");
        let watched = scratch.open(required).expect("good");
        fs::remove_file(scratch.path()).expect("remove");
        let (table, errors) = refresh(&watched);
        assert_eq!((table, errors.len()), (vec![1], 1), "{errors:?}");
        assert_eq!(refresh(&watched), (vec![1], vec![]));
        scratch.write("2\n");
        assert_eq!(refresh(&watched), (vec![2], vec![]));
    }
}

#[test]
fn only_a_file_that_is_not_required_may_be_absent() {
    let scratch = Scratch::new("absent");
    assert_eq!(scratch.open(true).expect_err("absent").len(), 1);
    let watched = scratch.open(false).expect("empty");
    assert_eq!(refresh(&watched), (vec![], vec![]));
    scratch.write("5\n");
    assert_eq!(refresh(&watched), (vec![5], vec![]), "and may appear");
}

#[test]
fn a_huge_file_and_a_directory_are_errors_and_dev_null_is_empty() {
    let scratch = Scratch::new("huge");
    File::create(scratch.path()).expect("create").set_len(MAX_SIZE + 1).expect("size");
    assert!(scratch.open(false).expect_err("huge")[0].text.contains("64 MiB"));
    let open =
        |path: &Path| Watched::open(&Rights::Alone, &TableFile { path: path.to_owned(), required: false }, numbers);
    assert!(open(&scratch.0).is_err());
    assert!(open(Path::new("/dev/null")).expect("empty").current().is_empty());
}

#[test]
fn an_error_points_at_the_part_of_the_line() {
    let line = lines("\u{feff}\n# c\n é: b, c\r\n").next().expect("a line");
    assert_eq!((line.number, line.text), (3, " é: b, c"));
    let part = line.text.rsplit(' ').next().expect("last");
    assert_eq!(line.error(Path::new("f"), part, "what").to_string(), "f:3:8: what");
}

#[test]
fn a_tolerant_table_begins_with_valid_lines_and_keeps_a_table_without_errors() {
    let scratch = Scratch::new("tolerant");
    let begin = || {
        let read = |file: &Path, text: &str| {
            let errors = numbers(file, text).err().unwrap_or_default();
            (text.lines().filter_map(|line| line.parse().ok()).collect(), errors)
        };
        Watched::open_tolerant(&TableFile { path: scratch.path(), required: true }, read, |_| vec![0])
    };
    let (lost, errors) = begin();
    assert_eq!((&*lost.current(), errors.len()), (&vec![0], 1));
    scratch.write("1\nx\n");
    assert_eq!(*lost.current(), [1], "better than nothing");
    let (watched, errors) = begin();
    assert_eq!((&*watched.current(), errors.len()), (&vec![1], 1));
    scratch.write("1\n2\ny\n");
    assert_eq!(refresh(&watched), (vec![1, 2], vec!["T:3:1: expected a number".to_owned()]));
    scratch.write("1\n2\n3\n");
    assert_eq!(refresh(&watched), (vec![1, 2, 3], vec![]));
    scratch.write("z\n");
    assert_eq!(refresh(&watched).0, [1, 2, 3], "a whole table stays");
}

#[test]
fn the_number_of_logged_errors_is_limited() {
    let all: Vec<_> = (1..=25).map(|line| ConfigError::new(Path::new("f"), line, 1, "x")).collect();
    let some: Vec<String> = limited(&all).map(|error| error.to_string()).collect();
    assert_eq!((some.len(), some[20].as_str()), (21, "f: 5 more errors"));
    assert_eq!(limited(&all[..20]).count(), 20);
}
