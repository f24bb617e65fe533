//! Numbered places for values, in chunks that are given back when they are empty.
//!
//! One long vector could not shrink while a value sits at its end. Here the places are cut into chunks: a
//! new value goes to the lowest chunk with room, so that values gather at the front, and a chunk whose last
//! value leaves is freed, but for one that is kept so that a table around a border does not allocate for
//! every flow.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::list::NIL;

/// Places in a chunk. Each survivor of a storm holds back one chunk at most: with the 112 bytes that a flow
/// takes beside its owner's value that is 7 KB. The headers of the empty chunks are half a percent of the peak.
const CHUNK: u32 = 64;

/// The most places: a whole number of chunks, and none of them has the index [`NIL`].
pub(super) const MAX_PLACES: u32 = NIL - NIL % CHUNK;

#[derive(Debug)]
pub(super) struct Slab<E> {
    chunks: Vec<Chunk<E>>,
    /// The chunks with room, each once, the lowest on top. Only the top one is ever filled, so that none
    /// becomes full further down.
    room: BinaryHeap<Reverse<u32>>,
    /// The one empty chunk that still has its memory.
    spare: Option<u32>,
    len: u32,
}

/// Places that grow to [`CHUNK`] as they are used: a table of one flow takes the memory of a few.
#[derive(Debug)]
struct Chunk<E> {
    places: Vec<Place<E>>,
    free: u32,
    used: u32,
}

#[derive(Debug)]
enum Place<E> {
    Used(E),
    /// The next free place of the chunk.
    Free(u32),
}

impl<E> Slab<E> {
    pub(super) const fn new() -> Self {
        Self { chunks: Vec::new(), room: BinaryHeap::new(), spare: None, len: 0 }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn get(&self, index: u32) -> Option<&E> {
        match self.chunks.get((index / CHUNK) as usize)?.places.get((index % CHUNK) as usize)? {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut E> {
        match self.chunks.get_mut((index / CHUNK) as usize)?.places.get_mut((index % CHUNK) as usize)? {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &E)> {
        self.chunks.iter().zip(0u32..).flat_map(|(chunk, number)| {
            chunk.places.iter().zip(number * CHUNK..).filter_map(|(place, index)| match place {
                Place::Used(value) => Some((index, value)),
                Place::Free(_) => None,
            })
        })
    }

    /// Takes the value in and returns its index. The caller keeps the slab below [`MAX_PLACES`].
    pub(super) fn insert(&mut self, value: E) -> u32 {
        let number = match self.room.peek() {
            Some(Reverse(number)) => *number,
            None => {
                let number = self.chunks.len() as u32;
                self.chunks.push(Chunk { places: Vec::new(), free: NIL, used: 0 });
                self.room.push(Reverse(number));
                number
            }
        };
        if self.spare == Some(number) {
            self.spare = None;
        }
        let chunk = &mut self.chunks[number as usize];
        let offset = chunk.insert(value);
        if chunk.used == CHUNK {
            self.room.pop();
        }
        self.len += 1;
        number * CHUNK + offset
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<E> {
        let number = index / CHUNK;
        let chunk = self.chunks.get_mut(number as usize)?;
        let value = chunk.remove(index % CHUNK)?;
        self.len -= 1;
        if chunk.used == CHUNK - 1 {
            self.room.push(Reverse(number));
        }
        if chunk.used == 0 {
            // Of two empty chunks the lower is filled first, so that the higher is freed.
            let spare = self.spare.map_or(number, |other| other.min(number));
            if let Some(other) = self.spare {
                self.chunks[other.max(number) as usize].clear();
            }
            self.spare = Some(spare);
        }
        Some(value)
    }

    #[cfg(test)]
    pub(super) fn allocated(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.places.capacity()).sum()
    }
}

impl<E> Chunk<E> {
    /// The caller knows that there is room.
    fn insert(&mut self, value: E) -> u32 {
        self.used += 1;
        let offset = self.free;
        match self.places.get_mut(offset as usize) {
            Some(place) => {
                if let Place::Free(next) = std::mem::replace(place, Place::Used(value)) {
                    self.free = next;
                }
                offset
            }
            None => {
                self.places.push(Place::Used(value));
                self.places.len() as u32 - 1
            }
        }
    }

    fn remove(&mut self, offset: u32) -> Option<E> {
        let place = self.places.get_mut(offset as usize)?;
        match std::mem::replace(place, Place::Free(self.free)) {
            Place::Used(value) => {
                self.free = offset;
                self.used -= 1;
                Some(value)
            }
            Place::Free(next) => {
                *place = Place::Free(next);
                None
            }
        }
    }

    fn clear(&mut self) {
        self.places = Vec::new();
        self.free = NIL;
    }
}
