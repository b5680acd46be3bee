"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const drop = byId("drop"), files = byId("files"), slider = byId("threshold"), model = byId("model"), key = byId("key");
  const AT_ONCE = 4; // requests under way
  const shown = []; // { file, card, score }, newest first on the page
  let waiting = [], running = 0, pause = 0;

  function add(list) {
    for (const file of list) {
      const card = byId("card").content.firstElementChild.cloneNode(true);
      card.querySelector("h2").textContent = file.name;
      byId("cards").prepend(card);
      const entry = { file, card, score: null };
      shown.push(entry);
      waiting.push(entry);
    }
    next();
  }

  function next() {
    while (running < AT_ONCE && waiting.length) {
      running++;
      judge(waiting.shift()).finally(() => { running--; next(); });
    }
    count();
  }

  async function judge(entry) {
    const form = new FormData(), threshold = slider.value, asked = model.value;
    const headers = key.value ? { Authorization: `Bearer ${key.value}` } : {};
    form.append("image", entry.file);
    try {
      const answer = await fetch(`predict?overlay=true&threshold=${threshold}&model=${asked}`, { method: "POST", body: form, headers });
      const found = await answer.json();
      if (threshold !== slider.value || asked !== model.value) return; // it has moved on, and all are asked for again
      if (answer.status === 503) { // too many at once: again, a little later
        await new Promise((resolve) => setTimeout(resolve, 500));
        waiting.push(entry);
      } else if (answer.ok) show(entry, found);
      else refuse(entry, typeof found.detail === "string" ? found.detail : JSON.stringify(found.detail));
    } catch (error) {
      refuse(entry, `the service did not answer (${error.message})`);
    }
  }

  function show(entry, found) {
    const { card } = entry, part = (selector) => card.querySelector(selector);
    entry.score = found.score;
    part("img").src = `data:image/jpeg;base64,${found.overlay}`;
    part("img").alt = `Anomaly map of ${entry.file.name}`;
    URL.revokeObjectURL(part(".view").href);
    part(".view").href = URL.createObjectURL(blob(found.overlay));
    part(".score").textContent = found.score.toFixed(2);
    part(".verdict").textContent = found.decision;
    card.classList.toggle("bad", found.decision === "anomalous");
    part(".notes").replaceChildren(...found.findings.slice(0, 3).map((words) => {
      const item = document.createElement("li");
      item.textContent = words;
      return item;
    }));
    part(".reason").hidden = true;
    card.classList.remove("failed");
  }

  function refuse(entry, reason) {
    const line = entry.card.querySelector(".reason");
    line.textContent = reason;
    line.hidden = false;
    entry.card.classList.add("failed");
    entry.card.querySelector(".verdict").textContent = "failed";
  }

  function blob(base64) {
    return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type: "image/jpeg" });
  }

  function count() {
    const scored = shown.filter(({ score }) => score !== null);
    const bad = scored.filter(({ score }) => score >= Number(slider.value)).length;
    const left = waiting.length + running;
    byId("counts").textContent = shown.length
      ? `${bad} anomalous, ${scored.length - bad} normal${left ? `, ${left} to come` : ""}` : "";
  }

  slider.addEventListener("input", () => {
    byId("threshold-value").textContent = Number(slider.value).toFixed(3);
    clearTimeout(pause);
    pause = setTimeout(() => { waiting = [...shown]; next(); }, 300);
  });
  for (const choice of [model, key]) choice.addEventListener("change", () => { waiting = [...shown]; next(); });
  byId("address").textContent = location.href;
  files.addEventListener("change", () => { add(files.files); files.value = ""; });
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
    });
  }
  document.addEventListener("drop", (event) => add(event.dataTransfer.files));
  document.addEventListener("paste", (event) => add(event.clipboardData.files));
})();
