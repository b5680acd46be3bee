// --- the list of thumbnails, the highest score first

const bench = {
  images: [], byName: new Map(), shown: [], open: null, scored: 0, runThreshold: 0.5, thresholdBefore: null, promises: {}, command: "",
  state: { revision: -1, verdicts: {}, threshold: 0.5, suggestion: null, areas: { inspect: [], ignore: [] }, good: [], taught: null, states: null },
  threshold: 0.5, good: new Set(), filter: "all", words: [], cards: new Map(),
};
const AT_A_TIME = 120; // cards that are added when the end of the list comes into view
let cardLimit = AT_A_TIME;

const isBad = (image) => image.score !== null && image.score >= bench.threshold;
const isGood = (image) => bench.good.has(image.name);
const verdictOf = (image) => bench.state.verdicts[image.name] ?? null;
// what people say goes before what the folder's name says; a skipped image has no label
function labelOf(image) {
  const verdict = verdictOf(image);
  return verdict === "skip" ? null : verdict ?? image.label;
}
const isWrong = (image) => labelOf(image) !== null && image.score !== null && (labelOf(image) === "ng") !== isBad(image);
const WORDS = { ok: "OK", ng: "NG", skip: "skipped" };

const filters = {
  all: () => true,
  bad: isBad,
  good: (image) => image.score !== null && !isBad(image),
  open: (image) => verdictOf(image) === null && image.score !== null,
  wrong: isWrong,
  ok: (image) => labelOf(image) === "ok",
};

function choose() {
  bench.shown = bench.images.filter((image) => filters[bench.filter](image)
    && bench.words.every((word) => `${image.name} ${image.class_name}`.toLowerCase().includes(word)));
  fillList();
}

const loader = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    if (!isIntersecting) continue;
    loader.unobserve(target);
    loadThumbnail(target);
  }
}, { rootMargin: "300px" });

async function loadThumbnail(card) {
  const name = card.dataset.name, image = card.querySelector("img");
  if (bench.byName.get(name)?.error) return;
  try {
    const before = image.src;
    image.src = await pictureAddress(about("thumbnail", name, `&with_map=${viewer.showMap}&scored=${bench.scored}`));
    if (before.startsWith("blob:")) URL.revokeObjectURL(before);
  } catch (error) {
    if (!(error instanceof Refused)) return; // the server is away; polling tells
    tell(error.message);
  }
}

function cardOf(image) {
  let card = bench.cards.get(image.name);
  if (card) return card;
  card = byId("card").content.firstElementChild.cloneNode(true);
  card.dataset.name = image.name;
  card.querySelector(".file").textContent = image.name;
  card.querySelector(".card").title = image.name;
  card.querySelector(".card").addEventListener("click", () => open(image.name, true));
  bench.cards.set(image.name, card);
  loader.observe(card);
  return card;
}

function fillList() {
  const cards = bench.shown.slice(0, cardLimit).map((image) => {
    const card = cardOf(image);
    label(card, image);
    return card;
  });
  byId("cards").replaceChildren(...cards);
  byId("nothing").hidden = bench.shown.length > 0;
  byId("shown").textContent = `${bench.shown.length} of ${bench.images.length}`;
  tellCandidates();
}

function label(card, image) {
  const button = card.querySelector(".card"), bad = isBad(image), said = labelOf(image), verdict = verdictOf(image);
  button.classList.toggle("bad", bad);
  button.classList.toggle("disagrees", isWrong(image));
  button.setAttribute("aria-current", String(image.name === bench.open));
  card.querySelector(".score").textContent = image.score === null ? "–" : image.score.toFixed(2);
  card.querySelector(".verdict").textContent = image.error ? "failed" : bad ? "anomalous" : "normal";
  card.querySelector(".mark").textContent = isGood(image) ? "good" : verdict ? WORDS[verdict] : said ? `(${WORDS[said]})` : "";
}

new IntersectionObserver(([{ isIntersecting }]) => {
  if (!isIntersecting || cardLimit >= bench.shown.length) return;
  cardLimit += AT_A_TIME;
  fillList();
}, { rootMargin: "600px" }).observe(byId("more"));

document.querySelectorAll("[data-filter]").forEach((button) => button.addEventListener("click", () => {
  bench.filter = button.dataset.filter;
  document.querySelectorAll("[data-filter]").forEach((one) => one.setAttribute("aria-pressed", one === button));
  cardLimit = AT_A_TIME;
  choose();
}));
byId("search").addEventListener("input", (event) => {
  bench.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  cardLimit = AT_A_TIME;
  choose();
});
byId("maps").addEventListener("change", (event) => {
  viewer.showMap = event.target.checked;
  viewer.draw();
  for (const card of bench.cards.values()) loader.observe(card);
});
