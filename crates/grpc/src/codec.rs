//! How messages become bytes.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// Messages are sent on as soon as there are so many bytes of them. A stream that nobody reads keeps as many, and the memory
/// that they grew in: at most twice as much. tonic's own 32 KiB would be up to 64 for each.
const PIECE: usize = 8 << 10;

/// tonic's codec of Protocol Buffers, in smaller pieces.
#[derive(Clone, Copy, Debug)]
pub struct SmallPieces<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallPieces<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallPieces<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(PIECE, PIECE))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::default().decoder()
    }
}
