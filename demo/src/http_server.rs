//! The private web server of the demo: a page, and a file of any size with known content.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context, Result};

use crate::content;

/// What the page says, so that a reader knows that it is the right one.
pub const PAGE: &str =
    "<!doctype html><title>Private page</title><h1>You reached the private web server.</h1>\n";
/// Largest file that is served.
const MAX_FILE: u64 = 1 << 32;

/// Serves on all given addresses until the process ends.
///
/// # Errors
///
/// If an address cannot be bound.
pub fn serve(addresses: &[IpAddr], port: u16) -> Result<()> {
    let listeners = addresses
        .iter()
        .map(|address| {
            TcpListener::bind((*address, port))
                .with_context(|| format!("cannot listen on {address} port {port}"))
        })
        .collect::<Result<Vec<_>>>()?;
    println!("listening");
    thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(|| accept(listener));
        }
    });
    Ok(())
}

fn accept(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            // A visitor that leaves half-way is not the server's problem.
            let _ = answer(stream);
        });
    }
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut request = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    request.read_line(&mut first)?;
    loop {
        let mut header = String::new();
        if request.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    if path == "/" {
        head(&mut stream, "200 OK", PAGE.len() as u64)?;
        stream.write_all(PAGE.as_bytes())?;
        return Ok(());
    }
    let size = path.strip_prefix("/file?bytes=").map(str::parse::<u64>);
    match size {
        Some(Ok(size)) if size <= MAX_FILE => {
            head(&mut stream, "200 OK", size)?;
            content::write(&mut stream, size)?;
        }
        _ => head(&mut stream, "404 Not Found", 0)?,
    }
    Ok(())
}

fn head(stream: &mut TcpStream, status: &str, length: u64) -> Result<()> {
    let text =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    Ok(stream.write_all(text.as_bytes())?)
}
