// Lets the planner work without a network: what planner.js kept answers where the network does not.
const STORE = "planner";

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

const fresh = async (request) => {
  const answer = await fetch(request);
  if (answer.ok) (await caches.open(STORE)).put(request, answer.clone());
  return answer;
};

const kept = async (request, error) => {
  const found = await caches.match(request, { ignoreSearch: request.mode === "navigate" });
  if (found) return found;
  throw error;
};

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || new URL(request.url).origin !== location.origin) return;
  event.respondWith(fresh(request).catch((error) => kept(request, error)));
});
