//! Many streams at once, of any size and with any end, each held to what its seed says of it.

use super::*;

const STREAMS: usize = 200;

/// How one end of a stream goes about it.
#[derive(Debug, Clone, Copy)]
struct Part {
    /// How much it writes.
    len: usize,
    /// So much it reads before it breaks the stream off, whatever it has written; if not, it reads all and writes an end.
    breaks_after: Option<usize>,
    /// How much it writes, and reads, at once.
    piece: usize,
}

/// What the seed says of both ends: who opened it, and the other.
fn parts(seed: u64) -> [Part; 2] {
    let mut random = Random(seed);
    let mut parts = [(); 2].map(|()| {
        let len = match random.below(4) {
            0 => 0,
            1 => random.below(100),
            2 => random.below(20_000),
            _ => random.below(600_000),
        };
        let breaks_after = (random.below(5) == 0).then(|| random.below(50_000));
        Part { len, breaks_after, piece: 1 + random.below(if len > 20_000 { 70_000 } else { 3_000 }) }
    });
    // Or both could wait for more than the other writes.
    let lens = parts.map(|part| part.len);
    for (part, other) in parts.iter_mut().zip([lens[1], lens[0]]) {
        part.breaks_after = part.breaks_after.map(|after| after.min(other));
    }
    parts
}

/// Plays one end and checks what it gets from the other.
async fn play(stream: Stream, seed: u64, mine: usize) {
    let parts = parts(seed);
    let (me, other) = (parts[mine], parts[1 - mine]);
    let (own, expected) = (noise(seed + mine as u64, me.len), noise(seed + 1 - mine as u64, other.len));
    let is_sound = other.breaks_after.is_none();
    let send = async {
        for piece in own.chunks(me.piece) {
            write(&stream, piece).await?;
        }
        if me.breaks_after.is_some() { std::future::pending().await } else { finish(&stream).await }
    };
    let receive = async {
        let mut got = 0;
        while me.breaks_after.is_none_or(|after| got < after) {
            match read(&stream, me.piece).await {
                Ok(part) if part.is_empty() => {
                    assert!(is_sound, "{seed}: an end where it was broken off");
                    assert_eq!(got, expected.len(), "{seed}: an end before all was there");
                    return;
                }
                Ok(part) => {
                    assert!(part == expected[got..got + part.len()], "{seed}: other bytes at {got}");
                    got += part.len();
                }
                Err(error) => {
                    assert!(!is_sound, "{seed}: {error} at {got} of {} bytes", expected.len());
                    return;
                }
            }
        }
    };
    if me.breaks_after.is_some() {
        tokio::select! {
            // An error of what it sends is found by who reads, too.
            () = receive => {}
            Err(_) = send => {}
        }
        stream.reset_on_close();
        return;
    }
    let (sent, ()) = tokio::join!(send, receive);
    assert!(sent.is_ok() || !is_sound, "{seed}: {sent:?}");
}

/// Opens all streams of one side, each as a task of `scope`.
async fn open_all(many: Many, first: u64, scope: &Scope) {
    let _begun = scope.hold();
    for index in 0..STREAMS as u64 {
        let seed = first + index * 2;
        let stream = many.open().await.unwrap();
        scope.spawn(async move {
            write(&stream, &seed.to_be_bytes()).await.unwrap();
            play(stream, seed, 0).await;
        });
        if index % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Takes those streams of the other side that are heard of before it is through: what is broken off at once may not be.
async fn take_all(incoming: &mut Incoming, theirs: &Scope, scope: &Scope) {
    loop {
        let stream = tokio::select! {
            stream = incoming.next() => stream.unwrap().place(),
            () = theirs.empty() => return,
        };
        scope.spawn(async move {
            let mut seed = Vec::new();
            while seed.len() < 8 {
                match read(&stream, 8 - seed.len()).await {
                    Ok(part) if !part.is_empty() => seed.extend(part),
                    // A reset may come before anything else.
                    Err(_) => return,
                    Ok(_) => panic!("an end in front of everything"),
                }
            }
            play(stream, u64::from_be_bytes(seed.try_into().unwrap()), 1).await;
        });
    }
}

#[test]
fn each_stream_is_what_its_seed_says() {
    wmproxy_runtime::panic::install_hook();
    for way in WAYS {
        let panics = wmproxy_runtime::panic::count();
        run(async {
            let Ends { client: (one, mut from_two), server: (two, mut from_one), .. } = Ends::new(way).await;
            let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
            println!("{way:?}, seed {seed}");
            let [opens_one, opens_two, takes] = [(); 3].map(|()| Scope::new());
            tokio::join!(
                open_all(one, seed, &opens_one),
                open_all(two, seed + 1_000_000, &opens_two),
                take_all(&mut from_one, &opens_one, &takes),
                take_all(&mut from_two, &opens_two, &takes),
            );
            takes.empty().await;
        });
        assert_eq!(wmproxy_runtime::panic::count(), panics, "{way:?}");
    }
}
