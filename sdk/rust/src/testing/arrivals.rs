use std::io;
use std::sync::mpsc::{Receiver, RecvError, TryRecvError};

use crate::host::Piece;

/// The body of an answer of a double's.
pub(crate) struct Arrivals {
    there: Vec<u8>,
    failed: Option<io::Error>,
    more: Option<Receiver<io::Result<Vec<u8>>>>,
}

impl Arrivals {
    pub(crate) fn whole(content: Vec<u8>) -> Self {
        Self { there: content, failed: None, more: None }
    }

    pub(crate) fn fed_by(pieces: Receiver<io::Result<Vec<u8>>>) -> Self {
        Self { there: Vec::new(), failed: None, more: Some(pieces) }
    }

    fn arrived(&mut self, piece: Result<io::Result<Vec<u8>>, RecvError>) {
        match piece {
            Ok(Ok(piece)) => self.there = piece,
            Ok(Err(error)) => {
                self.failed = Some(error);
                self.more = None;
            }
            Err(RecvError) => self.more = None,
        }
    }

    pub(crate) fn is_ready(&mut self) -> bool {
        while self.there.is_empty()
            && let Some(more) = &self.more
        {
            match more.try_recv() {
                Ok(piece) => self.arrived(Ok(piece)),
                Err(TryRecvError::Disconnected) => self.arrived(Err(RecvError)),
                Err(TryRecvError::Empty) => return false,
            }
        }
        true
    }

    pub(crate) fn take(&mut self, most: usize) -> io::Result<Piece> {
        if !self.is_ready() {
            return Ok(Piece::Nothing);
        }
        if self.there.is_empty() {
            return self.failed.take().map_or(Ok(Piece::End), Err);
        }
        let rest = self.there.split_off(most.min(self.there.len()));
        Ok(Piece::Bytes(std::mem::replace(&mut self.there, rest)))
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.there.is_empty()
            && let Some(more) = &self.more
        {
            let piece = more.recv();
            self.arrived(piece);
        }
        match self.take(buffer.len())? {
            Piece::Bytes(bytes) => {
                buffer[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            Piece::Nothing | Piece::End => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::mpsc;

    use crate::host::Piece;
    use crate::http::Body;

    #[test]
    fn a_body_says_when_there_is_nothing_yet_and_how_it_ended() {
        let (sender, pieces) = mpsc::channel();
        let mut body = Body::fed_by(pieces);
        assert_eq!((body.is_ready(), body.try_read(9).unwrap()), (false, Piece::Nothing));
        sender.send(Ok(b"abc".to_vec())).unwrap();
        assert_eq!(body.try_read(2).unwrap(), Piece::Bytes(b"ab".to_vec()));
        assert!(body.is_ready());
        sender.send(Err(std::io::ErrorKind::ConnectionReset.into())).unwrap();
        let mut buffer = [0; 9];
        assert_eq!((body.read(&mut buffer).unwrap(), buffer[0]), (1, b'c'));
        assert!(body.try_read(9).is_err(), "it broke off");
        let mut whole = String::new();
        Body::whole("x").read_to_string(&mut whole).unwrap();
        assert_eq!(whole, "x");
    }
}
