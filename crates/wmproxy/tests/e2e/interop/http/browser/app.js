// Uses what a page may use, and reports what it found.
const PICTURES = 30;

// Not relative to the page: a name and password in its address would come along, which `fetch` refuses.
const at = (path) => location.origin + path;

const loaded = new Promise((done) => addEventListener("load", done));

function picture(number) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image.naturalWidth);
    image.onerror = () => failed(new Error(`picture ${number}`));
    image.src = at(`/pictures/${number}.svg`);
    document.body.append(image);
  });
}

async function coded(coding) {
  const answer = await fetch(at(`/coded/${coding}/text.txt`));
  const text = await answer.text();
  return [answer.headers.get("content-encoding"), text.length, text.slice(-5)];
}

async function echo(size) {
  const body = new Uint8Array(size).map((_, index) => index % 251);
  const answer = await fetch(at("/echo"), { method: "POST", body });
  const back = new Uint8Array(await answer.arrayBuffer());
  return back.length === size && back.every((byte, index) => byte === index % 251);
}

// The answer comes while most of the body is still here.
async function refused() {
  const answer = await fetch(at("/refused"), { method: "POST", body: new Uint8Array(3_000_000) });
  return [answer.status, await answer.text()];
}

// The answer has no end: only what is passed on at once is seen.
function events() {
  return new Promise((done, failed) => {
    const source = new EventSource(at("/events"));
    const seen = [];
    source.onerror = () => failed(new Error("events"));
    source.onmessage = ({ data }) => {
      if (seen.push(data) === 3) {
        source.close();
        done(seen);
      }
    };
  });
}

function talk() {
  return new Promise((done, failed) => {
    const socket = new WebSocket(at("/ws").replace("http", "ws"));
    const heard = [];
    socket.binaryType = "arraybuffer";
    socket.onerror = () => failed(new Error("WebSocket"));
    socket.onopen = () => socket.send("hello");
    socket.onmessage = ({ data }) => {
      heard.push(data.byteLength ?? data);
      if (heard.length === 1) socket.send(new Uint8Array(300_000));
      else socket.close(1000);
    };
    socket.onclose = ({ code, wasClean }) => done([...heard, code, wasClean]);
  });
}

async function all() {
  await loaded;
  await fetch(at("/cookies"));
  const pictures = await Promise.all([...Array(PICTURES).keys()].map(picture));
  return {
    scheme: location.protocol,
    color: getComputedStyle(document.querySelector("p")).color,
    pictures: pictures.filter((width) => width === 16).length,
    codings: await Promise.all(["gzip", "br", "zstd"].map(coded)),
    echo: await echo(1_000_000),
    refused: await refused(),
    events: await events(),
    socket: await talk(),
    protocols: [...new Set(performance.getEntriesByType("resource").map((entry) => entry.nextHopProtocol).filter(Boolean))],
  };
}

all()
  .catch((error) => ({ error: String(error) }))
  .then((found) => fetch(at("/report"), { method: "POST", body: JSON.stringify(found) }));
