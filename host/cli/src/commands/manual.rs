//! `completions` and `man`: made of the same types that parse the command line.

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_mangen::Man as Page;
use pcoder_core::runtime::Error;

use crate::args::{Arguments, Completions, Man};
use crate::output::{note, print};

pub(crate) fn completions(arguments: &Completions) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "pcoder", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn man(arguments: &Man) -> Result<ExitCode, Error> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let Some(folder) = &arguments.to else {
        print(&String::from_utf8_lossy(&page(command, Path::new("standard output"))?))?;
        return Ok(ExitCode::SUCCESS);
    };
    std::fs::create_dir_all(folder).map_err(|error| Error::io("man", folder.display().to_string(), &error))?;
    let count = write_all(&command, "pcoder", folder)?;
    note(&format!("wrote {count} pages to {}", folder.display()));
    Ok(ExitCode::SUCCESS)
}

fn page(command: clap::Command, place: &Path) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let failed = |error: std::io::Error| Error::io("man", place.display().to_string(), &error);
    // Without a date: the same program writes the same pages.
    Page::new(command).render(&mut text).map_err(failed)?;
    Ok(text)
}

fn write_all(command: &clap::Command, name: &str, folder: &Path) -> Result<usize, Error> {
    let path = folder.join(format!("{name}.1"));
    let text = page(command.clone().name(name.to_owned()).display_name(name.to_owned()), &path)?;
    std::fs::write(&path, text).map_err(|error| Error::io("man", path.display().to_string(), &error))?;
    let mut count = 1;
    for inner in command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help") {
        count += write_all(inner, &format!("{name}-{}", inner.get_name()), folder)?;
    }
    Ok(count)
}
