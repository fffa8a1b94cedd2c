//! The pixel memory of one picture after another.

use crate::pipeline::types::Image;

/// Largest buffer that is kept between pictures: 2.8 megapixels. A 12-megapixel photo decoded at 3/8 has 1.7.
const BUFFER_BYTES_KEPT: usize = 8 << 20;
/// A picture that is turned by a quarter needs a second buffer beside the first.
const BUFFERS_KEPT: usize = 2;

/// Buffers that pictures are decoded into. They keep their memory from one picture to the next, up to a bound.
#[derive(Debug, Default)]
pub struct Canvas {
    buffers: Vec<Vec<u8>>,
}

impl Canvas {
    /// Takes back the memory of a picture that is done with.
    pub fn take_back(&mut self, image: Image) {
        self.keep(image.into_rgb());
    }

    /// `len` bytes that hold whatever the last picture left there.
    pub(in crate::pipeline) fn take(&mut self, len: usize) -> Vec<u8> {
        match self.buffers.pop() {
            Some(mut buffer) if buffer.capacity() >= len => {
                buffer.resize(len, 0);
                buffer
            }
            // Growing would copy what nobody wants.
            Some(_) | None => vec![0; len],
        }
    }

    /// Takes a buffer back. Of too many the largest ones stay.
    pub(in crate::pipeline) fn keep(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() > BUFFER_BYTES_KEPT {
            return;
        }
        let larger = self.buffers.partition_point(|kept| kept.capacity() <= buffer.capacity());
        self.buffers.insert(larger, buffer);
        if self.buffers.len() > BUFFERS_KEPT {
            self.buffers.remove(0);
        }
    }

    /// Bytes held.
    pub(in crate::pipeline) fn bytes(&self) -> usize {
        self.buffers.iter().map(Vec::capacity).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_serves_the_next_picture_and_two_stay() {
        let mut canvas = Canvas::default();
        let first = canvas.take(100);
        let place = first.as_ptr();
        canvas.keep(first);
        let again = canvas.take(60);
        assert_eq!((again.as_ptr(), again.len()), (place, 60));
        let (small, large) = (canvas.take(10), canvas.take(200));
        let large_at = large.as_ptr();
        for buffer in [again, large, small] {
            canvas.keep(buffer);
        }
        assert_eq!(canvas.bytes(), 300);
        let again = canvas.take(150);
        assert_eq!(again.as_ptr(), large_at, "the largest comes first");
    }

    #[test]
    fn a_huge_picture_holds_no_memory_afterwards() {
        let mut canvas = Canvas::default();
        for (len, kept) in [(BUFFER_BYTES_KEPT, BUFFER_BYTES_KEPT), (BUFFER_BYTES_KEPT + 1, 0)] {
            let buffer = canvas.take(len);
            canvas.keep(buffer);
            assert_eq!(canvas.bytes(), kept);
            canvas = Canvas::default();
        }
    }
}
