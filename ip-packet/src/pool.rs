//! The pool that packets' buffers come from and return to.
//!
//! One lock-free queue for the whole process, since every buffer has the same size and packets cross threads. It has
//! no influence on any decision: an empty pool means an allocation, a full one a deallocation.

use crate::MAX_IP_SIZE;
use crossbeam_queue::ArrayQueue;
use std::sync::LazyLock;

/// Buffers kept for reuse: 5 MiB, several times what all rings of waiting packets hold in normal operation.
const MAX_POOLED_BUFFERS: usize = 4096;

type Buffer = Box<[u8; MAX_IP_SIZE]>;

static POOL: LazyLock<ArrayQueue<Buffer>> = LazyLock::new(|| ArrayQueue::new(MAX_POOLED_BUFFERS));

/// A buffer of [`MAX_IP_SIZE`] bytes that returns to the pool when it is dropped, on any thread.
///
/// Reused buffers keep their old bytes: whoever takes one writes what it reads.
pub(crate) struct PooledBuffer(Option<Buffer>);

impl PooledBuffer {
    pub(crate) fn take() -> Self {
        Self(Some(
            POOL.pop().unwrap_or_else(|| Box::new([0; MAX_IP_SIZE])),
        ))
    }

    pub(crate) fn bytes(&self) -> &[u8; MAX_IP_SIZE] {
        self.0
            .as_ref()
            .expect("buffer is there until it is dropped")
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; MAX_IP_SIZE] {
        self.0
            .as_mut()
            .expect("buffer is there until it is dropped")
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        if let Some(buffer) = self.0.take() {
            // A full pool hands the buffer back, which frees it.
            let _surplus = POOL.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_return_to_the_pool_and_the_pool_is_bounded() {
        let many: Vec<_> = (0..MAX_POOLED_BUFFERS + 10)
            .map(|_| PooledBuffer::take())
            .collect();
        drop(many);
        assert!(POOL.len() <= MAX_POOLED_BUFFERS);
        assert!(POOL.len() > MAX_POOLED_BUFFERS / 2);
    }

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "what is tested is that threads do not matter"
    )]
    fn buffers_may_be_dropped_on_another_thread() {
        let buffer = PooledBuffer::take();
        std::thread::spawn(move || drop(buffer))
            .join()
            .expect("thread ends");
    }
}
