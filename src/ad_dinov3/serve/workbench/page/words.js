// --- words: the states that prompts name, tried on the open image and used for all

const words = byId("states"); // null where the model's prompts name none
let ownWords = null, wordsShown = ""; // the model's own, once they are asked for; those in the text areas, as JSON
let trial = null; // { score, map } of the open image with the words that are tried

const saidOf = (area) => byId(area).value.split("\n").map((line) => line.trim()).filter(Boolean);
const tellWords = (text) => { if (words) byId("states-said").textContent = text; };

function fillWords(states) {
  wordsShown = JSON.stringify(states);
  byId("states-normal").value = states.normal.join("\n");
  byId("states-abnormal").value = states.abnormal.join("\n");
}

// what is chosen, or was chosen in another browser, unless somebody is writing here
function followWords() {
  const chosen = bench.state.states ?? ownWords;
  if (ownWords && JSON.stringify(chosen) !== wordsShown && !words.contains(document.activeElement)) fillWords(chosen);
}

// what stands in the text areas; null where that cannot be
function writtenWords() {
  const states = { normal: saidOf("states-normal"), abnormal: saidOf("states-abnormal") };
  const wrong = [...states.normal, ...states.abnormal].find((line) => line.split("{}").length !== 2 || /[{}]/.test(line.replace("{}", "")));
  if (wrong) tellWords(`Each line needs {} once, for what the image shows; this one does not have it: ${wrong}`);
  else if (!states.normal.length || !states.abnormal.length) tellWords("Both sides need a line.");
  else return states;
  return null;
}

async function openWords() {
  if (!words.open || ownWords) return;
  tellWords("Opening the model …");
  try {
    ownWords = await (await ask("words")).json();
    fillWords(bench.state.states ?? ownWords);
    tellWords("");
  } catch (error) {
    if (!(error instanceof Refused)) return away();
    tellWords(error.message);
  }
}

async function tryWords() {
  const name = bench.open, states = writtenWords();
  if (!states) return;
  if (bench.byName.get(name)?.score == null) return tellWords("Open an image that could be scored.");
  tellWords("Scoring this image …");
  try {
    const answer = await change("try", { image: name, states }), map = decodeMap(await answer.arrayBuffer());
    if (bench.open !== name) return tellWords("");
    endTrial();
    trial = { score: Number(answer.headers.get("X-Score")), map };
    viewer.compare(map);
    decide();
    tellWords(`Score ${trial.score.toFixed(3)} with these words, ${bench.byName.get(name).score.toFixed(3)} before; B turns to the image before.`);
  } catch (error) {
    if (!(error instanceof Refused)) return away();
    tellWords(error.message);
  }
}

function endTrial() {
  tellWords("");
  if (!trial) return;
  trial = null;
  viewer.before = false;
  byId("before").setAttribute("aria-pressed", "false");
}

async function useWords(states) {
  endTrial();
  await waiting.add("words", { states }, apply);
  if (bench.open) viewer.compare(await readMap(bench.open));
  decide();
  tellWords(states && bench.state.states ? "All images are being scored by these words; the counts before and after will stand above the list." : "");
}

if (words) {
  words.addEventListener("toggle", openWords);
  byId("states-try").addEventListener("click", tryWords);
  byId("states-use").addEventListener("click", () => {
    const states = writtenWords();
    if (states) useWords(states);
  });
  byId("states-own").addEventListener("click", () => {
    if (ownWords) fillWords(ownWords);
    useWords(null);
  });
}
