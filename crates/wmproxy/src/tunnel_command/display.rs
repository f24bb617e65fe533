//! What a terminal shows of a tunnel while it runs: sessions, services, where these are, who visits them and how fast.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wmproxy_tunnel::client::{ClientStatus, SessionState};
use wmproxy_tunnel::server::ServerStatus;

use crate::admin::report::{bytes, uptime};
use crate::admin::tunnels::{own_state, places, state_word};
use crate::generation::tunnels::AtWork;
use crate::observe::screen::{self, Line, Part, Style};

/// Twice a second: what moves is seen to move, and a slow terminal keeps up.
const TICK: Duration = Duration::from_millis(500);

/// Over how long a rate is taken, so that it can be read.
const WINDOW: Duration = Duration::from_secs(2);

/// Narrower terminals show less of each service.
const WIDE: usize = 72;

/// How fast bytes pass, by the name of what they pass through.
#[derive(Default)]
struct Rates {
    /// What was counted, the oldest first.
    seen: HashMap<String, Vec<(Instant, [u64; 2])>>,
}

/// A service as it is shown.
struct Row {
    name: String,
    kind: String,
    state: (&'static str, Style),
    visitors: u64,
    /// Bytes a second from visitors, and to them.
    rates: [u64; 2],
    at: String,
}

/// Shows what is at work until the process ends.
pub(crate) async fn run(at_work: Arc<AtWork>) {
    let mut rates = Rates::default();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (now, columns) = (Instant::now(), screen::size().columns);
        let mut lines = Vec::new();
        if let Some(server) = at_work.server_status() {
            let counted = at_work.listeners();
            let mut count = |exposure: &str| {
                let own = || counted.iter().filter(|listener| &*listener.name == exposure);
                let bytes_in = own().map(|listener| listener.blocks.sum(|b| &b.bytes_in)).sum();
                let bytes_out = own().map(|listener| listener.blocks.sum(|b| &b.bytes_out)).sum();
                rates.of(exposure, now, [bytes_in, bytes_out])
            };
            lines.extend(server_lines(&server, &mut count, columns));
        }
        if let Some(client) = at_work.client_status() {
            let mut count = |name: &str, counted| rates.of(name, now, counted);
            lines.extend(client_lines(&client, &mut count, columns));
        }
        screen::show(lines);
    }
}

impl Rates {
    /// How fast what is counted grows.
    fn of(&mut self, name: &str, now: Instant, counted: [u64; 2]) -> [u64; 2] {
        let seen = self.seen.entry(name.to_owned()).or_default();
        seen.push((now, counted));
        let old = seen.iter().take_while(|(at, _)| now.duration_since(*at) > WINDOW).count();
        // The last one from before the window is where it begins.
        seen.drain(..old.saturating_sub(1));
        let Some((since, first)) = seen.first() else { return [0; 2] };
        let seconds = now.duration_since(*since).as_secs_f64();
        let rate = |index: usize| match seconds > 0.0 {
            true => (counted[index].saturating_sub(first[index]) as f64 / seconds) as u64,
            false => 0,
        };
        [rate(0), rate(1)]
    }
}

fn client_lines(
    client: &ClientStatus,
    count: &mut impl FnMut(&str, [u64; 2]) -> [u64; 2],
    columns: usize,
) -> Vec<Line> {
    let mut lines = Vec::new();
    for session in &client.sessions {
        let state = match session.state {
            SessionState::Open => Style::Good,
            SessionState::Connecting | SessionState::Leaving => Style::Busy,
            SessionState::Waiting | SessionState::Ended => Style::Bad,
        };
        let mut line = vec![
            Part::new(format!("{}  ", session.server), Style::Bold),
            Part::new(state_word(session.state), state),
            Part::new(format!(" {}", uptime(session.seconds)), Style::Plain),
        ];
        if let Some(ms) = session.round_trip_ms.filter(|_| session.state == SessionState::Open) {
            line.push(Part::new(format!("  {ms:.1} ms"), Style::Dim));
        }
        if session.state == SessionState::Open && session.pool > 0 {
            line.push(Part::new(format!("  {} ready", session.pool), Style::Dim));
        }
        if let Some(error) = session.error.as_ref().filter(|_| session.state != SessionState::Open) {
            line.push(Part::new(format!("  {error}"), Style::Bad));
        }
        lines.push(line);
    }
    let rows: Vec<Row> = client
        .services
        .iter()
        .map(|service| {
            let state = own_state(&client.sessions, service);
            let style = match state {
                "up" => Style::Good,
                "waiting" => Style::Busy,
                _ => Style::Bad,
            };
            Row {
                name: service.name.clone(),
                kind: service.kind.clone(),
                state: (state, style),
                visitors: service.visitors,
                rates: count(&service.name, [service.bytes_in, service.bytes_out]),
                at: places(&client.sessions, &service.name, service.is_private),
            }
        })
        .collect();
    lines.extend(table(&rows, columns));
    lines
}

fn server_lines(
    server: &ServerStatus,
    count: &mut impl FnMut(&str) -> [u64; 2],
    columns: usize,
) -> Vec<Line> {
    let mut lines = Vec::new();
    if server.clients.is_empty() {
        lines.push(vec![Part::new("no client has logged in yet", Style::Dim)]);
    }
    for client in &server.clients {
        let mut line = vec![Part::new(format!("{}  ", client.name), Style::Bold)];
        match &client.session {
            Some(session) => {
                let from = session.from.map_or_else(String::new, |from| format!("  {from}"));
                line.push(Part::new("here", Style::Good));
                line.push(Part::new(format!(" {}{from}", uptime(session.seconds)), Style::Plain));
                line.push(Part::new(format!("  {}", session.transport), Style::Dim));
                if session.pool > 0 {
                    line.push(Part::new(format!("  {} ready", session.pool), Style::Dim));
                }
            }
            None => line.push(Part::new("away", Style::Bad)),
        }
        if client.waiting > 0 {
            line.push(Part::new(format!("  {} waiting", client.waiting), Style::Busy));
        }
        lines.push(line);
    }
    let services =
        || server.clients.iter().flat_map(|client| client.services.iter().map(move |s| (client, s)));
    let rows: Vec<Row> = services()
        .map(|(client, service)| Row {
            name: format!("{}/{}", client.name, service.name),
            kind: service.kind.to_owned(),
            state: match (&service.refusal, service.is_up) {
                (Some(_), _) => ("refused", Style::Bad),
                (None, false) => ("down", Style::Bad),
                (None, true) => ("up", Style::Good),
            },
            visitors: service.visitors.into(),
            rates: service.exposure.as_deref().map_or([0; 2], &mut *count),
            at: match (&service.refusal, service.is_private) {
                (Some(refusal), _) => refusal.clone(),
                (None, true) => "private".to_owned(),
                (None, false) => service.places.join(", "),
            },
        })
        .collect();
    lines.extend(table(&rows, columns));
    let refused = server.counts.logins_refused + server.counts.logins_late + server.counts.pending_refused;
    if refused > 0 {
        lines.push(vec![Part::new(format!("{refused} logins refused"), Style::Busy)]);
    }
    lines
}

/// The services in columns, those with the widest first texts deciding.
fn table(rows: &[Row], columns: usize) -> Vec<Line> {
    if rows.is_empty() {
        return Vec::new();
    }
    let is_wide = columns >= WIDE;
    let widest = |title: &str, text: fn(&Row) -> &str| {
        rows.iter().map(|row| text(row).chars().count()).chain([title.len()]).max().unwrap_or_default()
    };
    let (name, kind) = (widest("SERVICE", |row| &row.name), widest("TYPE", |row| &row.kind));
    let state = widest("STATE", |row| row.state.0);
    let mut head = format!("{:<name$}  ", "SERVICE");
    if is_wide {
        head.push_str(&format!("{:<kind$}  ", "TYPE"));
    }
    head.push_str(&format!("{:<state$}  {:>8}  ", "STATE", "VISITORS"));
    if is_wide {
        head.push_str(&format!("{:>9}  {:>9}  ", "UP", "DOWN"));
    }
    head.push_str("AT");
    let mut lines = vec![Vec::new(), vec![Part::new(head, Style::Dim)]];
    for row in rows {
        let mut line = vec![Part::new(format!("{:<name$}  ", row.name), Style::Plain)];
        if is_wide {
            line.push(Part::new(format!("{:<kind$}  ", row.kind), Style::Plain));
        }
        line.push(Part::new(format!("{:<state$}", row.state.0), row.state.1));
        line.push(Part::new(format!("  {:>8}  ", row.visitors), Style::Plain));
        if is_wide {
            let rate = |bytes_a_second: u64| match bytes_a_second {
                0 => "-".to_owned(),
                some => format!("{}/s", bytes(some)),
            };
            let text = format!("{:>9}  {:>9}  ", rate(row.rates[0]), rate(row.rates[1]));
            line.push(Part::new(text, Style::Plain));
        }
        line.push(Part::new(&row.at, Style::Plain));
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use wmproxy_tunnel::client::{PlacedStatus, ServiceStatus, SessionStatus};

    use super::*;

    fn text(lines: &[Line]) -> Vec<String> {
        let line = |line: &Line| line.iter().map(|part| part.text.as_str()).collect::<String>();
        lines.iter().map(line).collect()
    }

    fn client() -> ClientStatus {
        let session = SessionStatus {
            server: "host:7000".into(),
            state: SessionState::Open,
            seconds: 75,
            error: None,
            retry_ms: None,
            round_trip_ms: Some(12.34),
            pool: 8,
            reconnects: 0,
            services: vec![PlacedStatus {
                name: "ssh".into(),
                places: vec!["tcp://host:20022".into()],
                refusal: None,
            }],
        };
        let service = ServiceStatus {
            name: "ssh".into(),
            kind: "tcp".into(),
            is_private: false,
            is_up: true,
            visitors: 2,
            visitors_total: 5,
            bytes_in: 0,
            bytes_out: 0,
        };
        ClientStatus { name: "home".into(), sessions: vec![session], services: vec![service] }
    }

    #[test]
    fn a_client_is_shown_with_its_sessions_and_services() {
        let lines = client_lines(&client(), &mut |_, _| [2048, 0], 80);
        assert_eq!(
            text(&lines),
            [
                "host:7000  open 1m 15s  12.3 ms  8 ready",
                "",
                "SERVICE  TYPE  STATE  VISITORS         UP       DOWN  AT",
                "ssh      tcp   up            2     2.0k/s          -  tcp://host:20022",
            ]
        );
        let narrow = text(&client_lines(&client(), &mut |_, _| [0; 2], 40));
        assert_eq!(narrow[3], "ssh      up            2  tcp://host:20022");
    }

    #[test]
    fn what_is_wrong_is_shown() {
        let mut status = client();
        status.sessions[0].state = SessionState::Waiting;
        status.sessions[0].error = Some("refused".into());
        status.sessions[0].services[0] =
            PlacedStatus { name: "ssh".into(), places: vec![], refusal: Some("port 20022 is in use".into()) };
        let lines = text(&client_lines(&status, &mut |_, _| [0; 2], 80));
        assert_eq!(lines[0], "host:7000  waiting 1m 15s  refused");
        assert!(lines[3].contains("refused") && lines[3].ends_with("port 20022 is in use"), "{lines:?}");
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let mut rates = Rates::default();
        let start = Instant::now();
        let second = |n: u64| start + Duration::from_secs(n);
        assert_eq!(rates.of("a", second(0), [0, 0]), [0, 0]);
        assert_eq!(rates.of("a", second(1), [1000, 10]), [1000, 10]);
        assert_eq!(rates.of("a", second(5), [1000, 10]), [0, 0]);
        assert_eq!(rates.of("b", second(5), [7, 7]), [0, 0]);
    }
}
