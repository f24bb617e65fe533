use std::sync::atomic::Ordering;

use super::*;
use crate::name_server::with_server;

/// Runs `test` beside a name server and the finder's lookups.
async fn with_finder<F: Future<Output = ()>>(
    test: impl FnOnce(Arc<crate::name_server::Server>, Arc<Finder>) -> F,
) {
    with_server(|server| async move {
        let (finder, lookups) = Finder::new(server.resolver());
        tokio::select! {
            () = lookups => unreachable!("the finder is still there"),
            () = test(server, finder) => {}
        }
    })
    .await;
}

fn ips(found: &Found) -> Vec<String> {
    found.as_ref().unwrap().iter().map(IpAddr::to_string).collect()
}

#[tokio::test]
async fn a_name_is_asked_for_once() {
    with_finder(|server, finder| async move {
        server.set("app.test", &["192.0.2.1", "192.0.2.2", "2001:db8::1"], 60);
        let (one, two) = tokio::join!(finder.find("app.test", None), finder.find("app.test", None));
        assert_eq!(ips(&one), ["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
        assert_eq!(ips(&two), ips(&one));
        assert_eq!(ips(&finder.find("app.test", None).await), ips(&one));
        assert_eq!(server.asked.load(Ordering::Relaxed), 2, "A and AAAA");
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_out_of_date_is_asked_for_again() {
    with_finder(|server, finder| async move {
        server.set("app.test", &["192.0.2.1"], 60);
        assert_eq!(ips(&finder.find("app.test", None).await), ["192.0.2.1"]);
        server.set("app.test", &["192.0.2.2"], 60);
        let age = |entry: &mut Entry| match entry {
            Entry::Known { until, .. } => *until = Instant::now(),
            Entry::Asked(_) => panic!("it was answered"),
        };
        finder.part("app.test").values_mut().for_each(age);
        assert_eq!(ips(&finder.find("app.test", None).await), ["192.0.2.2"]);
        // And so is everything when another resolver is to be asked.
        server.set("app.test", &["192.0.2.3"], 60);
        finder.ask(server.resolver());
        assert_eq!(ips(&finder.find("app.test", None).await), ["192.0.2.3"]);
    })
    .await;
}

#[tokio::test]
async fn names_without_addresses_are_told_from_servers_without_answers() {
    with_finder(|server, finder| async move {
        server.fail("bad.test");
        let none = finder.find("none.test", None).await.unwrap_err();
        assert_eq!((none.fault, none.to_string()), (Fault::Unresolved, missing("none.test").to_string()));
        assert_eq!(finder.find("bad.test", None).await.unwrap_err().fault, Fault::TimedOut);
        // Remembered for a while.
        let asked = server.asked.load(Ordering::Relaxed);
        assert_eq!(finder.find("none.test", None).await.unwrap_err().fault, Fault::Unresolved);
        assert_eq!(server.asked.load(Ordering::Relaxed), asked);
    })
    .await;
}

#[tokio::test]
async fn nobody_waits_for_lookups_that_have_ended() {
    with_server(|server| async move {
        let (finder, lookups) = Finder::new(server.resolver());
        let (found, ()) = tokio::join!(finder.find("app.test", None), async { drop(lookups) });
        assert_eq!(found.unwrap_err().fault, Fault::Resources);
        assert_eq!(finder.find("other.test", None).await.unwrap_err().fault, Fault::Resources);
    })
    .await;
}

#[tokio::test]
async fn one_client_leaves_places_to_others() {
    with_server(|server| async move {
        server.set("app.test", &["192.0.2.1"], 60);
        let (finder, lookups) = Finder::new(server.resolver());
        let ip = |text: &str| Some(text.parse().unwrap());
        // Nobody does the lookups yet, so that all of them wait. Of IPv6 a whole network is one client.
        let all = &finder;
        let mut asked: Vec<_> = (0..OF_ONE_CLIENT)
            .map(|number| {
                let name = format!("n{number}.test");
                Box::pin(async move { all.find(&name, ip("2001:db8::1")).await })
            })
            .collect();
        asked.iter_mut().for_each(|find| assert!(poll_once(find.as_mut()).is_pending()));
        let more = finder.find("app.test", ip("2001:db8::2")).await.unwrap_err();
        assert_eq!(more.fault, Fault::Limited);
        // Who has gone waits for nothing any more, and nothing is looked up for them.
        drop(asked);
        let found = tokio::select! {
            found = finder.find("app.test", ip("2001:db8::2")) => found,
            () = lookups => unreachable!("the finder is still there"),
        };
        assert_eq!(ips(&found), ["192.0.2.1"]);
        assert_eq!(server.asked.load(Ordering::Relaxed), 2, "A and AAAA of the one that is wanted");
        assert!(lock(&finder.waiting).is_empty());
    })
    .await;
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}

#[tokio::test]
async fn a_storm_of_names_has_an_end() {
    with_server(|server| async move {
        let (finder, _lookups) = Finder::new(server.resolver());
        // Nobody does the lookups, so that all of them wait.
        for number in 0..WAITING {
            assert!(finder.look(&format!("n{number}.test")).is_ok());
        }
        assert_eq!(finder.look("more.test").unwrap_err().fault, Fault::Resources);
        let kept = || finder.parts.iter().map(|part| lock(part).len()).sum::<usize>();
        assert_eq!(kept(), WAITING, "one for each question, and none for that which was not taken");
    })
    .await;
}

#[test]
fn a_part_that_is_full_gives_up_what_is_out_of_date_first() {
    let mut part: HashMap<Arc<str>, Entry> = HashMap::new();
    let known = |until| Entry::Known { found: Err(missing("x")), until };
    let now = Instant::now();
    for number in 0..PART {
        let until = if number < 3 { now } else { now + Duration::from_secs(60) };
        part.insert(format!("n{number}").into(), known(until));
    }
    make_room(&mut part);
    assert_eq!(part.len(), PART - 3);
    assert!(!part.contains_key("n0"));
    (0..3).for_each(|number| drop(part.insert(format!("m{number}").into(), known(now + MAX_TTL))));
    make_room(&mut part);
    assert_eq!(part.len(), PART - 1);
}

#[test]
fn a_name_has_so_many_addresses_and_no_more() {
    let v4 = (0..100).map(|n| IpAddr::from([192, 0, 2, n])).collect();
    let answer = Answer { v4: Some(v4), v6: None, ttl: Duration::from_secs(3600) };
    let (found, ttl) = sort("many.test", Ok(answer));
    assert_eq!((found.unwrap().len(), ttl), (ADDRESSES, MISSING), "half an answer holds shortly");
}
