// --- good images, which all others are compared with, and what that has changed

const scores = byId("add") !== null; // the server has a model
const teaches = byId("use-good") !== null; // by which images can be compared

function useAsGood(images, isGood) {
  for (const name of images) {
    if (isGood) bench.good.add(name);
    else bench.good.delete(name);
  }
  waiting.add("good", { images, is_good: isGood }, apply);
  decide();
}

// those that are shown and that nobody calls NG
const candidates = () => bench.shown.filter((image) => image.score !== null && labelOf(image) !== "ng" && !isGood(image));

function tellCandidates() {
  if (!teaches) return;
  const count = candidates().length;
  byId("use-shown").hidden = count === 0 || count > Number(byId("use-shown").dataset.most);
  byId("use-shown").textContent = count === 1 ? "Use this as good image" : `Use these ${count} as good images`;
}

function tellWork({ words, done, total, trouble }) {
  if (!scores) return;
  byId("scoring").hidden = !words;
  byId("work-words").textContent = total ? `${words}: ${done} of ${total} images` : words;
  byId("work-bar").max = total || 1;
  if (total) byId("work-bar").value = done;
  else byId("work-bar").removeAttribute("value");
  byId("work-trouble").hidden = !trouble;
  byId("work-trouble").textContent = trouble;
}

const lessons = (count) => `${count} good ${count === 1 ? "image" : "images"}`;

function tellGood() {
  if (!scores) return;
  const { taught } = bench.state;
  byId("good").hidden = bench.good.size === 0 && !bench.state.states;
  byId("good-words").textContent = [bench.good.size ? lessons(bench.good.size) : "", bench.state.states ? "other words" : ""].filter(Boolean).join(", ");
  byId("compared").hidden = !taught;
  if (!taught) return trial ? undefined : showBefore(false);
  byId("compared-words").textContent = [
    taught.good ? `Scores are compared with ${lessons(taught.good)}, which the counts leave out, as the model knows them.` : "",
    taught.words ? "Prompts name the words that were chosen; the model that the command above names keeps them." : "",
    taught.same_model ? "" : "The scores before are of another model, or of one that knew other good images.",
  ].filter(Boolean).join(" ");
  const others = bench.images.filter((image) => image.score !== null && image.before !== null && !isGood(image));
  compare("before", others, (image) => image.before >= bench.thresholdBefore, bench.thresholdBefore);
  compare("after", others, isBad, bench.threshold);
}

function compare(when, images, decides, threshold) {
  const count = (label, bad) => images.filter((image) => (!label || labelOf(image) === label) && decides(image) === bad).length;
  const cells = [threshold.toFixed(3), count(null, true), count(null, false), count("ng", false), count("ok", true)];
  byId("compared").querySelectorAll(`td.${when}`).forEach((cell, index) => { cell.textContent = cells[index]; });
}

// the open image as it was judged before
async function showBefore(wanted) {
  if (viewer.before === wanted) return;
  viewer.before = wanted;
  byId("before").setAttribute("aria-pressed", String(wanted));
  const name = bench.open, image = bench.byName.get(name);
  if (!image || image.error) return;
  try {
    const map = await readMap(name);
    if (bench.open === name && viewer.before === wanted) viewer.compare(map);
    decideOpen();
  } catch (error) {
    if (error instanceof Refused) tell(error.message);
    else away();
  }
}

if (teaches) {
  byId("use-good").addEventListener("click", () => bench.open && useAsGood([bench.open], !isGood(bench.byName.get(bench.open))));
  byId("use-shown").addEventListener("click", () => useAsGood(candidates().map(({ name }) => name), true));
}
if (scores) {
  byId("forget").addEventListener("click", () => {
    if (bench.state.states) useWords(null);
    if (bench.good.size) useAsGood([...bench.good], false);
  });
  byId("before").addEventListener("click", () => showBefore(!viewer.before));
}
