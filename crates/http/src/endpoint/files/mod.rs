//! The endpoint that serves files.
//!
//! What lives here: how a request comes to its file and the file to its client, without a worker that waits for a disk: what is
//! not in memory is [looked for and read](pool) beside it. Files that are asked for often are [held open](cache). What must
//! not: which file a path names and what of it is answered, which is of `files`.

mod cache;
mod held;
mod pool;
mod produced;
mod source;

pub use cache::files_open;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use wmproxy_files::Effort;
use wmproxy_files::file::File;
use wmproxy_files::listing;
use wmproxy_files::options::FilesSpec;
use wmproxy_files::path::PathName;
use wmproxy_files::reply::{self, Asked, Content};
use wmproxy_files::site::{Directory, Found, LookError, Site};
use wmproxy_net::pressure;
use wmproxy_net::record::Outcome;
use wmproxy_wire::head::Method;
use wmproxy_wire::head::coding::{self, Preferred};

use crate::exchange::{End, Exchange, Nothing, Source, seconds};
use crate::facts::Scene;
use crate::filter::rewrite::BadPath;
use crate::filter::tries::Next;
use crate::filter::{Filters, Pass};
use crate::reply::{Failure, plain};
use crate::route::BuildError;
use crate::vars::with_scratch;
use cache::Kept;
use pool::{Disk, Undone};
use produced::ProducedSource;
use source::{FileSource, PartsSource};

thread_local! {
    /// The name of what is asked for.
    static NAME: RefCell<PathName> = RefCell::default();
}

/// A tree of files.
#[derive(Debug)]
pub(crate) struct Files {
    site: Arc<Site>,
    disk: Arc<Disk>,
    /// What tells its files from those of others in the worker's cache.
    id: u64,
}

/// What a request is answered with.
enum Answer {
    File(Rc<Kept>),
    Directory(Directory),
    NoSlash,
    /// An error.
    Status(u16),
}

impl Files {
    /// Serves what a spec says. It opens the root.
    ///
    /// # Errors
    /// The root can't be opened.
    pub(crate) fn new(spec: FilesSpec) -> Result<Files, BuildError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let root = spec.root.clone();
        let built = Site::new(spec).and_then(|site| Ok((site, Disk::of(&root)?)));
        let (site, disk) = built.map_err(|error| BuildError::Root { root, error })?;
        Ok(Files { site, disk, id: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    /// Answers with a file, or what else a path names. Where the route has several paths to try, one after the other.
    pub(crate) async fn answer(
        &self,
        ex: &mut Exchange<'_, '_>,
        filters: &Filters,
        pass: &Pass,
    ) -> Result<End, Failure> {
        if reply::by_method(self.site.spec(), ex.request, ex.response) == Asked::Answered {
            return Ok(self.send_head(ex, filters, pass).await);
        }
        let preferred = match self.site.spec().precompressed.as_slice() {
            [] => Preferred::default(),
            ours => coding::preferred(ours, &ex.request.fields),
        };
        match self.find(ex, filters, &preferred).await? {
            Answer::File(kept) => Ok(self.send(ex, filters, pass, kept).await),
            // Boxed, for these are rarer, and larger.
            Answer::Directory(directory) => {
                Ok(Box::pin(self.send_directory(ex, filters, pass, directory)).await)
            }
            Answer::NoSlash => {
                reply::redirect_to_slash(ex.request, ex.response);
                Ok(self.send_head(ex, filters, pass).await)
            }
            Answer::Status(status) => Ok(Box::pin(self.refuse(ex, filters, pass, status)).await),
        }
    }

    /// What a request is answered with.
    async fn find(
        &self,
        ex: &mut Exchange<'_, '_>,
        filters: &Filters,
        preferred: &Preferred,
    ) -> Result<Answer, Failure> {
        let mut index = 0;
        loop {
            let answer = match self.aim(ex, filters, index) {
                Err(_) => return Ok(Answer::Status(400)),
                Ok(()) => match self.find_now(preferred) {
                    Some(answer) => answer,
                    None => Box::pin(self.find_aside(ex, preferred)).await?,
                },
            };
            let Some(tries) = &filters.tries else {
                return Ok(match answer {
                    // What is left of the path has a slash, and what the client shows its user has none.
                    Answer::File(_) | Answer::Directory(_) if filters.strips_all(&ex.facts.path) => {
                        Answer::NoSlash
                    }
                    answer => answer,
                });
            };
            let status = match &answer {
                Answer::File(_) | Answer::Directory(_) => 200,
                // A path without a slash is meant for a file; the last one is answered whatever it is.
                Answer::NoSlash => 404,
                Answer::Status(status) => *status,
            };
            match tries.after(index, status, ex.request) {
                Next::Ask(next) => index = next,
                Next::Status(_) if matches!(answer, Answer::NoSlash) => return Ok(answer),
                Next::Status(status) => return Ok(Answer::Status(status)),
                Next::Deliver => return Ok(answer),
            }
        }
    }

    /// Reads the name of what is asked for, on the try with a number.
    fn aim(&self, ex: &mut Exchange<'_, '_>, filters: &Filters, index: usize) -> Result<(), BadPath> {
        let Exchange { conn, request, facts, .. } = ex;
        NAME.with_borrow_mut(|name| {
            if index == 0 {
                // As it came: what is no name is refused before anything is made of it.
                name.read(request.raw_path()).map_err(|_| BadPath)?;
            }
            match &filters.tries {
                Some(tries) => with_scratch(|path| {
                    tries.path(index, &Scene { conn, request, response: None, facts }, path);
                    filters.retarget(Some(path), conn, request, facts)
                })?,
                None => filters.retarget(None, conn, request, facts)?,
            }
            if !std::ptr::eq(request.target(), request.asked_target()) {
                name.read(request.raw_path()).map_err(|_| BadPath)?;
                if facts.path.ends_with(b"/") {
                    name.show_directory();
                }
            }
            Ok(())
        })
    }

    /// What the name that was read stands for, as far as the worker and the kernel know it. None if a disk has to be asked.
    fn find_now(&self, preferred: &Preferred) -> Option<Answer> {
        NAME.with_borrow(|name| {
            if let Some(kept) = cache::get(self.id, name, preferred) {
                return Some(Answer::File(kept));
            }
            match self.site.look(name, preferred, Effort::Cached) {
                Err(LookError::WouldBlock) => None,
                found => Some(self.learn(name, preferred, found)),
            }
        })
    }

    /// The same, by asking the disk.
    async fn find_aside(&self, ex: &mut Exchange<'_, '_>, preferred: &Preferred) -> Result<Answer, Failure> {
        let name = NAME.with_borrow(PathName::clone);
        let site = Arc::clone(&self.site);
        let preferred = *preferred;
        let found = self.aside(ex, move || {
            let found = site.look(&name, &preferred, Effort::Full);
            (name, found)
        });
        Ok(match found.await? {
            Some((name, found)) => self.learn(&name, &preferred, found),
            None => Answer::Status(500),
        })
    }

    /// Takes what was found to the worker's cache.
    fn learn(&self, name: &PathName, preferred: &Preferred, found: Result<Found, LookError>) -> Answer {
        if let Ok(Found::File(file)) = found {
            return Answer::File(cache::put(self.id, name, preferred, file));
        }
        cache::remove(self.id, name, preferred);
        match found {
            Ok(Found::File(_) | Found::Missing) => Answer::Status(404),
            Ok(Found::Directory(directory)) => Answer::Directory(directory),
            Ok(Found::NoSlash) => Answer::NoSlash,
            Ok(Found::Forbidden) => Answer::Status(403),
            Err(LookError::Busy) => Answer::Status(503),
            Err(LookError::Resources(error)) => {
                // What is held open may be what is missing.
                cache::clear();
                pressure::note(&error);
                Answer::Status(503)
            }
            Err(error) => {
                tracing::warn!(root = %self.site.spec().root.display(), %error, "a file can't be looked for");
                Answer::Status(500)
            }
        }
    }

    /// Answers with a file.
    async fn send(&self, ex: &mut Exchange<'_, '_>, filters: &Filters, pass: &Pass, kept: Rc<Kept>) -> End {
        let content = reply::answer(self.site.spec(), &kept.file, ex.request, seconds(), ex.response);
        match content {
            Content::Nothing => self.send_head(ex, filters, pass).await,
            Content::Part(range) => {
                let bytes = kept.bytes().and_then(|bytes| {
                    bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
                });
                let Some(bytes) = bytes else {
                    let len = range.end - range.start;
                    let source = FileSource::new(Arc::clone(&self.disk), Arc::clone(&kept.file), range);
                    drop(kept);
                    return Box::pin(self.send_from(ex, filters, pass, source, Some(len))).await;
                };
                reply::put_cors(self.site.spec(), ex.request, ex.response);
                End::from(ex.deliver(filters, pass, bytes).await)
            }
            Content::Parts(parts) => {
                let len = parts.len;
                let source = PartsSource::new(Arc::clone(&self.disk), Arc::clone(&kept.file), *parts);
                drop(kept);
                Box::pin(self.send_from(ex, filters, pass, source, Some(len))).await
            }
        }
    }

    /// Answers with a directory.
    async fn send_directory(
        &self,
        ex: &mut Exchange<'_, '_>,
        filters: &Filters,
        pass: &Pass,
        directory: Directory,
    ) -> End {
        ex.response.clear();
        let produce = listing::answer(directory, ex.request, ex.response);
        if ex.request.method == Method::Head {
            return self.send_from(ex, filters, pass, Nothing, None).await;
        }
        let client = ex.facts.client.map(|client| client.ip());
        match ProducedSource::new(Arc::clone(&self.disk), client, produce) {
            Some(source) => self.send_from(ex, filters, pass, source, None).await,
            None => self.refuse(ex, filters, pass, 503).await,
        }
    }

    /// Answers with an error: by the page that the site has for it, or the usual one.
    async fn refuse(&self, ex: &mut Exchange<'_, '_>, filters: &Filters, pass: &Pass, status: u16) -> End {
        if status == 400 {
            // The rest of such a client's requests is not believed either.
            ex.is_persistent = false;
        }
        let page = match self.page(ex, status).await {
            Ok(page) => page,
            Err(outcome) => return End::Cut(outcome),
        };
        if let Some(file) = page {
            let range = reply::error_page(status, &file, ex.response);
            let len = range.end - range.start;
            let source = FileSource::new(Arc::clone(&self.disk), file, range);
            return self.send_from(ex, filters, pass, source, Some(len)).await;
        }
        let body = plain(status, ex.response);
        reply::put_cors(self.site.spec(), ex.request, ex.response);
        End::from(ex.deliver(filters, pass, body.as_bytes()).await)
    }

    /// The site's page for an error.
    async fn page(&self, ex: &mut Exchange<'_, '_>, status: u16) -> Result<Option<Arc<File>>, Outcome> {
        let found = match self.site.error_page(status, Effort::Cached) {
            Err(LookError::WouldBlock) => {
                let site = Arc::clone(&self.site);
                match self.aside(ex, move || site.error_page(status, Effort::Full)).await {
                    Ok(found) => found.unwrap_or(Ok(None)),
                    Err(Failure::Gone(outcome)) => return Err(outcome),
                    Err(Failure::Status(_)) => Ok(None),
                }
            }
            found => found,
        };
        Ok(found.unwrap_or_else(|error| {
            tracing::debug!(listener = %ex.conn.listener, status, %error, "no page for an error");
            None
        }))
    }

    /// Sends the response that is there, which has no body.
    async fn send_head(&self, ex: &mut Exchange<'_, '_>, filters: &Filters, pass: &Pass) -> End {
        reply::put_cors(self.site.spec(), ex.request, ex.response);
        End::from(ex.deliver(filters, pass, b"").await)
    }

    /// Sends the response that is there, with a body.
    async fn send_from(
        &self,
        ex: &mut Exchange<'_, '_>,
        filters: &Filters,
        pass: &Pass,
        mut source: impl Source,
        len: Option<u64>,
    ) -> End {
        reply::put_cors(self.site.spec(), ex.request, ex.response);
        End::from(ex.deliver_from(filters, pass, &mut source, len).await)
    }
    /// Has something done beside the worker, for a client that waits for it. None when it panicked.
    async fn aside<T: Send + 'static>(
        &self,
        ex: &mut Exchange<'_, '_>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Failure> {
        let mut work = self.disk.start(work);
        let done = poll_fn(|cx| match work.poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if ex.front.is_gone(cx) => Poll::Ready(Err(Failure::Gone(Outcome::ClientReset))),
            Poll::Pending => Poll::Pending,
        });
        self.told(done.await?)
    }

    /// What came of something that was done beside the worker; none when it panicked.
    fn told<T>(&self, done: Result<T, Undone>) -> Result<Option<T>, Failure> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(Undone::Panicked) => Ok(None),
            Err(Undone::Late) => {
                tracing::warn!(root = %self.site.spec().root.display(), "the disk does not answer");
                // Without the site's own page: that lies where nobody answers.
                Err(Failure::Status(503))
            }
        }
    }
}

#[cfg(test)]
mod tests;
