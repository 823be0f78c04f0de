// Runs the calculators: Python in a thread of its own, so that the page never waits.
import { loadPyodide } from "./pyodide.mjs";

const say = (message) => postMessage(message);

const start = async () => {
  say({ progress: "Loading Python" });
  const library = fetch(new URL("cookbook.zip", import.meta.url)).then((r) => r.arrayBuffer());
  const python = await loadPyodide({ indexURL: new URL(".", import.meta.url).href });
  say({ progress: "Loading the calculators" });
  python.unpackArchive(await library, "zip");
  const respond = python.pyimport("cookbook_lib.publishing.planner.page").respond;
  const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  say({ ready: true, loaded: [import.meta.url, ...loaded] });
  return respond;
};

// The newest request counts: what waits behind the one that runs is dropped.
const waiting = new Map();
let respond = null;
let busy = false;

const work = () => {
  const [part] = waiting.keys();
  if (!respond || busy || !part) return;
  busy = true;
  const request = waiting.get(part);
  waiting.delete(part);
  const began = performance.now();
  try {
    const answer = JSON.parse(respond(JSON.stringify(request)));
    say({ part, answer, number: request.number, milliseconds: performance.now() - began });
  } catch (error) {
    say({ failed: String(error) });
  }
  busy = false;
  setTimeout(work); // messages that came meanwhile are read first
};

onmessage = ({ data }) => {
  if (data.part === "quick") waiting.clear();
  waiting.set(data.part, data);
  work();
};

start().then(
  (ready) => {
    respond = ready;
    work();
  },
  (error) => say({ failed: String(error) }),
);
