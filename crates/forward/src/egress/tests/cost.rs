use std::hint::black_box;

use super::*;

/// Names, suffixes and networks, each as many as `count`.
fn rules(count: u32) -> EgressSpec {
    let texts = |text: fn(u32) -> String| (0..count).map(move |number| text(number).into_boxed_str());
    EgressSpec {
        deny: texts(|n| format!("www{n}.blocked{}.example", n % 1000))
            .chain(texts(|n| format!("*.zone{n}.example")))
            .chain(texts(|n| format!("{}.{}.{}.0/24", 11 + n / 65536, n / 256 % 256, n % 256)))
            .collect(),
        ..spec(&[], &[])
    }
}

/// The memory that the process has been given so far.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn nanoseconds(egress: &Egress, text: &str) -> f64 {
    const ROUNDS: u32 = 4000;
    let (to, guest) = (to(text), somebody());
    let visit = Visit { to: &to, kind: Kind::Http, guest: &guest, client: None };
    let time = || {
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            assert!(egress.way(black_box(&visit)).is_ok());
        }
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
    };
    (0..9).map(|_| time()).min_by(f64::total_cmp).unwrap()
}

/// Not a test of being right: it prints what rules cost. Run it with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn cost_of_many_rules() {
    for count in [10, 1000, 100_000] {
        let spec = rules(count);
        let before = resident();
        let begun = Instant::now();
        let egress = deaf(&spec);
        let (built, memory) = (begun.elapsed(), resident().saturating_sub(before));
        let name = nanoseconds(&egress, "www.some-longer-name.example.com:443");
        let near = nanoseconds(&egress, "www.blocked7.example:443");
        let ip = nanoseconds(&egress, "203.0.114.9:443");
        println!(
            "{count} names, suffixes and networks each: {name:.0} ns for a name, {near:.0} ns for one like those denied, \
             {ip:.0} ns for an address; built in {built:?} with {} KiB",
            memory / 1024
        );
    }
}

/// That many rules cost about what few do; the bound leaves room for a machine under load.
#[test]
fn many_rules_cost_as_few() {
    let (few, many) = (deaf(&rules(10)), deaf(&rules(5_000)));
    for text in ["www.some-longer-name.example.com:443", "203.0.114.9:443"] {
        let (few, many) = (nanoseconds(&few, text), nanoseconds(&many, text));
        assert!(many < few * 8.0 + 1000.0, "{text}: {few} ns by 10 rules, {many} ns by 5,000");
    }
}
