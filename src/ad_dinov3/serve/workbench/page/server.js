// --- the server: what it is asked, and reviews that wait here while it does not answer

const byId = (id) => document.getElementById(id);
const WAITING = `ad-dinov3 waiting ${location.host}${location.pathname}`;
const KEY = "ad-dinov3 key";

function headers(extra = {}) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...extra, Authorization: `Bearer ${key}` } : extra;
}

class Refused extends Error {}

async function ask(path, options = {}) {
  const answer = await fetch(`bench/${path}`, { ...options, headers: headers(options.headers) });
  if (answer.ok) return answer;
  const found = await answer.json().catch(() => ({}));
  const words = typeof found.detail === "string" ? found.detail : `status ${answer.status}`;
  throw new Refused(answer.status === 401 ? "Enter the key to see the images." : words);
}

const change = (path, body) => ask(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
const about = (path, name, more = "") => `${path}?image=${encodeURIComponent(name)}${more}`;

// the address of a picture: fetched first where a key is needed, which an <img> cannot send
async function pictureAddress(path) {
  if (!sessionStorage.getItem(KEY)) return `bench/${path}`;
  return URL.createObjectURL(await (await ask(path)).blob());
}

function tell(words) {
  byId("trouble").textContent = words;
  byId("trouble").hidden = !words;
}

// changes are sent one after the other; those that cannot be sent are kept in this browser until they can
const waiting = {
  list: JSON.parse(localStorage.getItem(WAITING) || "[]"),
  busy: false,
  keep() { localStorage.setItem(WAITING, JSON.stringify(this.list)); },
  add(path, body, then) {
    this.list.push({ path, body });
    this.keep();
    return this.send(then);
  },
  async send(then) {
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.list.length) {
        const { path, body } = this.list[0];
        try {
          const state = await (await change(path, body)).json();
          this.list.shift();
          this.keep();
          then(state);
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
          this.list.shift(); // it would be refused again
          this.keep();
          tell(error.message);
        }
      }
      return;
    } catch {
      const count = this.list.length;
      tell(`The server does not answer. ${count} ${count === 1 ? "change waits" : "changes wait"} in this browser and will be sent.`);
    } finally {
      this.busy = false;
    }
  },
};
