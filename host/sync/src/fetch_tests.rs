//! How files are divided into runs.

use proptest::prelude::*;

use super::*;

fn wanted(sizes: &[u64]) -> Vec<Wanted> {
    let path = |index: usize| TreePath::new(format!("file {index}").as_bytes()).expect("a path");
    sizes.iter().enumerate().map(|(index, size)| Wanted { path: path(index), size: *size, sum: Sum::of(b"") }).collect()
}

#[test]
fn small_files_come_together_and_a_large_one_in_pieces() {
    let wanted = wanted(&[10, 20, 5_000_000, 30, 0]);
    let runs = runs(&wanted, 2_000_000);
    let pieces: Vec<(u64, u64)> = runs
        .iter()
        .filter_map(|it| if let Run::Piece { offset, length, .. } = it { Some((*offset, *length)) } else { None })
        .collect();
    assert_eq!(pieces.len(), 3, "{runs:?}");
    assert_eq!(pieces[0].0, 0);
    assert!(pieces.windows(2).all(|it| it[0].0 + it[0].1 == it[1].0));
    assert_eq!(pieces.iter().map(|it| it.1).sum::<u64>(), 5_000_000);
    assert_eq!(runs.last(), Some(&Run::Files(vec![0, 1, 3, 4])));
}

proptest! {
    #[test]
    fn each_file_comes_once_and_no_run_is_longer_than_allowed(
        sizes in proptest::collection::vec(prop_oneof![0..1000u64, 0..10_000_000u64], 0..30), limit in 200_000..5_000_000u64,
    ) {
        let wanted = wanted(&sizes);
        let mut come = vec![0; sizes.len()];
        for run in runs(&wanted, limit) {
            match run {
                Run::Files(files) => {
                    prop_assert!(grown(files.iter().map(|it| packed_size(&wanted[*it])).sum()) <= limit);
                    files.iter().for_each(|it| come[*it] += sizes[*it].max(1));
                }
                Run::Piece { file, length, .. } => {
                    prop_assert!(length > 0 && grown(length) <= limit + 1);
                    come[file] += length;
                }
            }
        }
        prop_assert_eq!(come, sizes.iter().map(|it| (*it).max(1)).collect::<Vec<_>>());
    }
}
