//! The three codings, each behind the same few calls.

use std::cell::RefCell;
use std::fmt;

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct};
use flate2::{Compress as Deflate, Compression, FlushCompress, Status};
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

use crate::options::Encoding;

/// Of 64 KB of HTML, by one core: level 1 takes 77 us and leaves 16.1 %, level 3 takes 118 us and leaves 15.3 %, level 5 takes
/// 362 us and leaves 14.4 %. What is compressed once and sent once is not worth more.
const ZSTD_LEVEL: i32 = 3;

/// The window, as a power of two: 128 KB. A web page has little that is alike further apart, and a coder has 1.7 MB with it
/// where it has 3.7 MB by default.
const ZSTD_WINDOW: u32 = 17;

/// Quality 3 takes 420 us and leaves 14.9 %, 4 takes 614 us and leaves 14.3 %, 5 takes 884 us and leaves 13.2 %.
const BROTLI_QUALITY: u32 = 4;

/// As for zstd; a larger one changes nothing for pages.
const BROTLI_WINDOW: u32 = 17;

/// Level 1 takes 91 us and leaves 20.1 %, 5 takes 370 us and leaves 14.1 %, the usual 6 takes 441 us and leaves 14.0 %.
const GZIP_LEVEL: u32 = 5;

/// How much is asked for at a time where a coder writes.
const STEP: usize = 16 << 10;

/// Coders of each kind that a worker keeps for the next response.
const POOLED: usize = 4;

/// A stream of one coding.
pub(super) enum Coder {
    Zstd(CCtx<'static>),
    /// Boxed, for its state is of several KB.
    Br(Box<BrotliEncoderStateStruct<StandardAlloc>>),
    Gzip(Deflate),
}

/// A coder that has failed, for want of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed;

/// Coders at rest.
#[derive(Default)]
struct Pool {
    zstd: Vec<CCtx<'static>>,
    gzip: Vec<Deflate>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// What a coder is to do with what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// To keep it for as long as it likes.
    Take,
    /// To write all of it, so that it can be read on the other side.
    Flush,
    /// To write all of it, and the end.
    Finish,
}

impl Coder {
    /// One for a body, of a length that may be known.
    pub(super) fn new(coding: Encoding, length: Option<u64>) -> Option<Coder> {
        match coding {
            Encoding::Zstd => {
                let pooled = POOL.with_borrow_mut(|pool| pool.zstd.pop());
                let mut context = match pooled {
                    Some(context) => context,
                    None => {
                        let mut context = CCtx::try_create()?;
                        context.set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL)).ok()?;
                        context.set_parameter(CParameter::WindowLog(ZSTD_WINDOW)).ok()?;
                        context
                    }
                };
                // With it the tables are no larger than they need to be.
                context.set_pledged_src_size(length).ok()?;
                Some(Coder::Zstd(context))
            }
            Encoding::Br => {
                let mut state = Box::new(BrotliEncoderStateStruct::new(StandardAlloc::default()));
                state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_QUALITY, BROTLI_QUALITY);
                state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_LGWIN, BROTLI_WINDOW);
                let hint = length.and_then(|length| u32::try_from(length).ok()).unwrap_or(0);
                state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_SIZE_HINT, hint);
                Some(Coder::Br(state))
            }
            Encoding::Gzip => {
                let pooled = POOL.with_borrow_mut(|pool| pool.gzip.pop());
                Some(Coder::Gzip(
                    pooled.unwrap_or_else(|| Deflate::new_gzip(Compression::new(GZIP_LEVEL), 15)),
                ))
            }
        }
    }

    /// Takes bytes of the body, and adds what comes of it to `out`.
    pub(super) fn run(&mut self, data: &[u8], aim: Aim, out: &mut Vec<u8>) -> Result<(), Failed> {
        match self {
            Coder::Zstd(context) => run_zstd(context, data, aim, out),
            Coder::Br(state) => run_brotli(state, data, aim, out),
            Coder::Gzip(state) => run_gzip(state, data, aim, out),
        }
    }

    /// Keeps what is worth it for the next body.
    pub(super) fn recycle(self) {
        // At the end of the thread the pool may be gone first.
        let _ = POOL.try_with(|pool| {
            let Ok(mut pool) = pool.try_borrow_mut() else { return };
            match self {
                Coder::Zstd(mut context) => {
                    let is_clean = context.reset(ResetDirective::SessionOnly).is_ok();
                    if is_clean && pool.zstd.len() < POOLED {
                        pool.zstd.push(context);
                    }
                }
                Coder::Gzip(mut state) if pool.gzip.len() < POOLED => {
                    state.reset();
                    pool.gzip.push(state);
                }
                Coder::Gzip(_) | Coder::Br(_) => {}
            }
        });
    }
}

fn run_zstd(context: &mut CCtx<'static>, data: &[u8], aim: Aim, out: &mut Vec<u8>) -> Result<(), Failed> {
    let directive = match aim {
        Aim::Take => ZSTD_EndDirective::ZSTD_e_continue,
        Aim::Flush => ZSTD_EndDirective::ZSTD_e_flush,
        Aim::Finish => ZSTD_EndDirective::ZSTD_e_end,
    };
    let mut input = InBuffer::around(data);
    loop {
        out.reserve(STEP);
        let at = out.len();
        let mut output = OutBuffer::around_pos(out, at);
        let left = context.compress_stream2(&mut output, &mut input, directive).map_err(|_| Failed)?;
        let is_done = match aim {
            Aim::Take => input.pos() == data.len(),
            Aim::Flush | Aim::Finish => left == 0,
        };
        if is_done {
            return Ok(());
        }
    }
}

fn run_brotli(
    state: &mut BrotliEncoderStateStruct<StandardAlloc>,
    data: &[u8],
    aim: Aim,
    out: &mut Vec<u8>,
) -> Result<(), Failed> {
    let operation = match aim {
        Aim::Take => BrotliEncoderOperation::BROTLI_OPERATION_PROCESS,
        Aim::Flush => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
        Aim::Finish => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
    };
    let (mut left, mut read) = (data.len(), 0);
    loop {
        // Without room of ours it keeps its output until it is taken, which saves a copy.
        let (mut room, mut written) = (0, 0);
        let is_well = state.compress_stream(
            operation,
            &mut left,
            data,
            &mut read,
            &mut room,
            &mut [],
            &mut written,
            &mut None,
            &mut |_, _, _, _| (),
        );
        if !is_well {
            return Err(Failed);
        }
        while state.has_more_output() {
            // Zero asks for all of it. What comes back may be longer than what it says of it.
            let mut length = 0;
            let start = out.len();
            out.extend_from_slice(state.take_output(&mut length));
            out.truncate(start + length);
        }
        let is_done = match aim {
            Aim::Take | Aim::Flush => left == 0,
            Aim::Finish => state.is_finished(),
        };
        if is_done {
            return Ok(());
        }
    }
}

fn run_gzip(state: &mut Deflate, data: &[u8], aim: Aim, out: &mut Vec<u8>) -> Result<(), Failed> {
    let flush = match aim {
        Aim::Take => FlushCompress::None,
        Aim::Flush => FlushCompress::Sync,
        Aim::Finish => FlushCompress::Finish,
    };
    let mut rest = data;
    loop {
        out.reserve(STEP);
        let before = state.total_in();
        let status = state.compress_vec(rest, out, flush).map_err(|_| Failed)?;
        // No more than there was, which is a length.
        rest = &rest[(state.total_in() - before) as usize..];
        let has_room = out.len() < out.capacity();
        let is_done = match aim {
            Aim::Take | Aim::Flush => rest.is_empty() && has_room,
            Aim::Finish => status == Status::StreamEnd,
        };
        if is_done {
            return Ok(());
        }
    }
}

impl fmt::Debug for Coder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Coder::Zstd(_) => "Zstd",
            Coder::Br(_) => "Br",
            Coder::Gzip(_) => "Gzip",
        })
    }
}
