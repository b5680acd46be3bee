// --- decisions and reviews

const slider = byId("threshold");
const undone = JSON.parse(sessionStorage.getItem("ad-dinov3 undo") || "[]"); // { id, image } of this tab's reviews
const BINS = 50;

function decide() {
  const scored = bench.images.filter(({ score }) => score !== null), bad = scored.filter(isBad).length;
  byId("bad-count").textContent = bad;
  byId("good-count").textContent = scored.length - bad;
  slider.value = bench.threshold;
  byId("threshold-value").textContent = bench.threshold.toFixed(3);
  byId("reset").hidden = Math.abs(bench.threshold - bench.runThreshold) < 5e-4;
  byId("reset").textContent = `Back to ${bench.runThreshold.toFixed(3)}`;
  [...byId("histogram").children].forEach((bar, index) => bar.classList.toggle("bad", (index + 0.5) / BINS >= bench.threshold));
  byId("command").textContent = `${bench.command} --threshold ${bench.threshold.toFixed(3)}`;
  countLabels(scored.filter((image) => !isGood(image)));
  tellGood();
  followWords();
  tellCandidates();
  promise();
  for (const [name, card] of bench.cards) if (card.isConnected) label(card, bench.byName.get(name));
  decideOpen();
}

function countLabels(scored) {
  const cells = { tp: 0, fn: 0, fp: 0, tn: 0 };
  for (const image of scored) {
    const said = labelOf(image);
    if (said) cells[said === "ng" ? (isBad(image) ? "tp" : "fn") : isBad(image) ? "fp" : "tn"]++;
  }
  for (const [cell, count] of Object.entries(cells)) byId(cell).textContent = count;
  const found = bench.state.suggestion;
  byId("suggestion").hidden = byId("suggested").hidden = !found;
  if (!found) return;
  byId("suggestion").textContent = `Use ${found.threshold.toFixed(3)}, as suggested`;
  byId("suggested").textContent = `At ${found.threshold.toFixed(3)}, ${found.missed} of ${found.defects} NG images are missed and ${found.flagged} of ${found.good} OK images flagged. These images chose it, so new ones will do worse.`;
}

// what the model promises at its own threshold; elsewhere, what the OK images show
function promise() {
  const words = Object.values(bench.promises), here = Math.abs(bench.threshold - bench.runThreshold) < 5e-4;
  const good = bench.images.filter((image) => image.score !== null && labelOf(image) === "ok" && !isGood(image));
  const flagged = good.filter(isBad).length;
  const seen = good.length ? `${flagged} of ${good.length} OK images ${flagged === 1 ? "is" : "are"} flagged here.` : `No ${bench.good.size ? "other " : ""}image is labelled OK yet.`;
  byId("promise").textContent = !words.length ? `${seen} The model promises nothing: ${bench.state.taught?.good ? "that takes more good images" : "it knows no good images"}.`
    : here ? `${words.map(sentence).join(" ")} ${seen}` : `${seen} The promise holds at ${bench.runThreshold.toFixed(3)} only.`;
}

const sentence = (words) => `${words[0].toUpperCase()}${words.slice(1)}.`;

function drawHistogram() {
  const counts = new Array(BINS).fill(0);
  for (const { score } of bench.images) if (score !== null) counts[Math.min(BINS - 1, Math.floor(score * BINS))]++;
  const top = Math.max(1, ...counts);
  byId("histogram").replaceChildren(...counts.map((count) => {
    const bar = document.createElement("i");
    bar.style.height = count ? `max(3px, ${(100 * Math.sqrt(count / top)).toFixed(1)}%)` : "0";
    return bar;
  }));
}

// --- the open image

let opening = 0;

async function open(name, focus = false) {
  const image = bench.byName.get(name), turn = ++opening;
  if (!image) return;
  if (patches.on && name !== bench.open) comparePatches(false);
  if (name !== bench.open) endTrial();
  bench.open = name;
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  byId("viewer").hidden = false;
  byId("name").textContent = name;
  for (const [other, card] of bench.cards) card.querySelector(".card").setAttribute("aria-current", String(other === name));
  bench.cards.get(name)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  if (focus) byId("canvas").focus({ preventScroll: true });
  decideOpen();
  if (image.error) return;
  try {
    const [photo, map] = await Promise.all([readPhoto(name), readMap(name)]);
    if (turn !== opening) return photo.close();
    viewer.show(photo, map, { width: image.width, height: image.height });
    decideOpen();
  } catch (error) {
    if (error instanceof Refused) tell(error.message);
    else away();
  }
}

function decideOpen() {
  const image = bench.byName.get(bench.open);
  if (!image) return;
  const as = shownAs(), score = { now: image.score, before: image.before, tried: trial?.score }[as];
  const threshold = as === "before" ? bench.thresholdBefore : bench.threshold;
  const bad = score !== null && score >= threshold, said = labelOf(image), verdict = verdictOf(image);
  byId("viewer").classList.toggle("bad", bad);
  byId("score").textContent = score === null ? "" : score.toFixed(3);
  byId("decision").textContent = image.error ?? `${bad ? "anomalous" : "normal"}${as === "tried" ? ", with the words tried" : viewer.before ? ", before" : ""}`;
  byId("label").textContent = verdict ? `reviewed: ${WORDS[verdict]}` : said ? `${WORDS[said]} by its folder's name` : "not labelled";
  if (trial) byId("label").textContent += as === "tried" ? ` · before ${image.score.toFixed(3)}` : ` · tried ${trial.score.toFixed(3)}`;
  else if (image.before !== null) byId("label").textContent += viewer.before ? ` · now ${image.score.toFixed(3)}` : ` · before ${image.before.toFixed(3)}`;
  for (const button of document.querySelectorAll("[data-verdict]")) button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
  if (scores) byId("before").hidden = !bench.state.taught && !trial;
  byId("undo").disabled = undone.length === 0;
  byId("use-good")?.setAttribute("aria-pressed", String(isGood(image)));
  const size = { width: image.width, height: image.height };
  const regions = bad && viewer.judged ? findRegions(viewer.judged, threshold, image.min_area_px, size) : [];
  viewer.outline(regions);
  listRegions(regions, threshold, size);
  byId("canvas").setAttribute("aria-label", `${image.name}, score ${score?.toFixed(3) ?? "none"}, ${bad ? "anomalous" : "normal"}, ${regions.length} regions`);
}

function listRegions(regions, threshold, size) {
  const rows = regions.map((region, index) => {
    const row = document.createElement("tr");
    const cells = [index + 1, kindWords(region, threshold, size), positionWords(region.centroid, size), `${region.area.toLocaleString("en")} px²`, region.peak.toFixed(2)];
    row.append(...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
    return row;
  });
  byId("regions-caption").textContent = regions.length ? `Regions at ${threshold.toFixed(3)}` : "No regions: the image is called normal";
  byId("regions").tBodies[0].replaceChildren(...rows);
}

function step(by) {
  const at = bench.shown.findIndex(({ name }) => name === bench.open);
  const next = bench.shown[Math.min(Math.max(at + by, 0), bench.shown.length - 1)];
  if (next) open(next.name);
}

// --- reviews

function review(verdict) {
  const image = bench.byName.get(bench.open);
  if (!image) return;
  const id = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random().toString(36).slice(2)}`;
  const at = bench.shown.findIndex(({ name }) => name === image.name), next = bench.shown[at + 1];
  bench.state.verdicts[image.name] = verdict;
  remember({ id, image: image.name });
  waiting.add("review", { id, image: image.name, verdict }, apply);
  byId("said").textContent = `${image.name}: ${WORDS[verdict]}`;
  decide();
  if (next) open(next.name);
}

function undo() {
  const last = undone.pop();
  sessionStorage.setItem("ad-dinov3 undo", JSON.stringify(undone));
  if (!last) return;
  waiting.add("undo", { id: last.id }, apply);
  byId("said").textContent = `Took back what was said of ${last.image}`;
  open(last.image);
}

function remember(one) {
  undone.push(one);
  sessionStorage.setItem("ad-dinov3 undo", JSON.stringify(undone.slice(-200)));
}

// --- what the server says

function apply(state) {
  if (waiting.list.length) return; // what waits here is newer
  const moved = bench.state.threshold !== state.threshold;
  if (area.drawing || saving) state.areas = bench.state.areas; // being drawn
  bench.state = state;
  bench.good = new Set(state.good);
  if (moved && !sliding) bench.threshold = state.threshold;
  if (JSON.stringify(state.areas) !== areasShown) judgeOpen();
  decide();
  if (state.scored !== bench.scored) rescored().then(decide, away); // this tab's own change has changed the scores
  else if (bench.filter === "open" || bench.filter === "wrong") choose();
}

let areasShown = "";
function judgeOpen() {
  areasShown = JSON.stringify(bench.state.areas);
  if (!area.drawing && !document.activeElement?.matches(".handle")) tellAreas();
  viewer.judge();
  decideOpen();
}

async function readImages() {
  const found = await (await ask("images")).json();
  Object.assign(bench, { images: found.images, scored: found.scored, runThreshold: found.threshold, thresholdBefore: found.threshold_before, promises: found.promises, command: found.command });
  bench.byName = new Map(found.images.map((image) => [image.name, image]));
  bench.cards.clear();
  drawHistogram();
  choose();
}

// another list of images, and another map of the open one
async function rescored() {
  await readImages();
  const name = bench.open, image = bench.byName.get(name);
  endTrial();
  if (!image || image.error) return openDropped();
  const map = await readMap(name);
  if (bench.open === name) viewer.compare(map);
  openDropped();
}

let isAway = false;
function away() {
  isAway = true;
  const count = waiting.list.length;
  tell(`The server does not answer.${count ? ` ${count} ${count === 1 ? "change waits" : "changes wait"} in this browser and will be sent.` : ""}`);
}

const EVERY_MS = 1500;
async function poll() {
  try {
    if (waiting.list.length) await waiting.send(apply);
    const state = await (await ask(`state?since=${bench.state.revision}&scored=${bench.scored}`)).json();
    if (isAway && !waiting.list.length) {
      isAway = false;
      tell("");
    }
    tellWork(state.work);
    if (state.verdicts) {
      if (state.scored !== bench.scored) await rescored();
      const first = bench.state.revision < 0;
      if (first) bench.threshold = state.threshold;
      apply(state);
      const asked = decodeURIComponent(location.hash.slice(1));
      if (first) open(bench.byName.has(asked) ? asked : bench.shown[0]?.name);
    }
  } catch (error) {
    if (error instanceof Refused) tell(error.message);
    else away();
  }
  setTimeout(poll, EVERY_MS);
}

// --- hands

let sliding = 0;
function slide(value) {
  bench.threshold = Number(value);
  clearTimeout(sliding);
  sliding = setTimeout(() => {
    sliding = 0;
    waiting.add("threshold", { threshold: bench.threshold }, apply);
  }, 300);
  requestAnimationFrame(decide);
}
slider.addEventListener("input", () => slide(slider.value));
byId("reset").addEventListener("click", () => slide(bench.runThreshold));
byId("suggestion").addEventListener("click", () => slide(bench.state.suggestion.threshold));
byId("copy").addEventListener("click", async (event) => {
  await navigator.clipboard?.writeText(byId("command").textContent);
  event.target.textContent = "Copied";
});
byId("export").addEventListener("click", async () => {
  try {
    const found = await (await change("export", {})).json();
    byId("exported").textContent = `${found.images} labelled images are in ${found.folder}`;
  } catch (error) {
    if (error instanceof Refused) tell(error.message);
    else away();
  }
});
document.querySelectorAll("[data-verdict]").forEach((button) => button.addEventListener("click", () => review(button.dataset.verdict)));
byId("undo").addEventListener("click", undo);
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("key").value);
  tell("");
  bench.state.revision = -1;
});

const KEYS = {
  p: () => byId("patches")?.click(), g: () => byId("use-good")?.click(), b: () => byId("before")?.click(),
  o: () => review("ok"), n: () => review("ng"), s: () => review("skip"), u: undo,
  ArrowLeft: (event) => (event.shiftKey ? viewer.pan(40, 0) : step(-1)), ArrowRight: (event) => (event.shiftKey ? viewer.pan(-40, 0) : step(1)),
  ArrowUp: (event) => event.shiftKey && viewer.pan(0, 40), ArrowDown: (event) => event.shiftKey && viewer.pan(0, -40),
  "+": () => viewer.zoom(1.5), "=": () => viewer.zoom(1.5), "-": () => viewer.zoom(1 / 1.5), 0: () => viewer.fit(),
  m: () => byId("maps").click(), "/": () => byId("search").focus(),
};
// single keys work only while the list or the image has the focus, so that no other tool is disturbed
byId("work").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  if (!event.shiftKey && movePatch(event.key)) return event.preventDefault();
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || (event.key.startsWith("Arrow") && (event.key === "ArrowUp" || event.key === "ArrowDown") && !event.shiftKey)) return;
  event.preventDefault();
  act(event);
});

poll();
