"use strict";
(() => {
  const root = document.documentElement;
  const stored = {
    get(key) { try { return localStorage.getItem(key); } catch { return null; } },
    set(key, value) { try { localStorage.setItem(key, value); } catch { /* a page of file: may have none */ } },
  };

  // Language and theme.
  const speak = (language) => {
    root.lang = language;
    root.dataset.lang = language;
    for (const select of document.querySelectorAll("select[data-words]")) name(select);
  };
  const byId = (id) => document.getElementById(id);
  const asked = new URLSearchParams(location.hash.startsWith("#?") ? location.hash.slice(2) : "");
  const preferred = asked.get("lang") || stored.get("zpdbench-lang") ||
    ((navigator.language || "").startsWith("ko") ? "ko" : "en");
  const theme = asked.get("theme") || stored.get("zpdbench-theme");
  if (theme) root.dataset.theme = theme;
  byId("language").hidden = byId("theme").hidden = false;
  byId("language").addEventListener("click", () => {
    const next = root.dataset.lang === "ko" ? "en" : "ko";
    stored.set("zpdbench-lang", next);
    speak(next);
  });
  byId("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    stored.set("zpdbench-theme", root.dataset.theme);
  });

  // A number leads to its row: open the table that holds it.
  const reveal = (id) => {
    const target = id && byId(id);
    if (!target) return;
    const holder = target.closest("details");
    if (holder) holder.open = true;
    for (const row of document.querySelectorAll("tr.hit")) row.classList.remove("hit");
    if (target.tagName === "TR") target.classList.add("hit");
    target.scrollIntoView({ block: "center" });
  };
  const follow = () => reveal(decodeURIComponent(location.hash.slice(1)));
  addEventListener("hashchange", follow);
  document.addEventListener("click", (event) => {
    const mark = event.target.closest("[data-row]");
    if (mark) location.hash = mark.dataset.row;
    const link = event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) follow();
  });

  // The explorer.
  const words = {};
  const template = byId("words");
  if (template) {
    for (const part of template.content.querySelectorAll("[data-key]")) {
      words[part.dataset.key] = {
        en: part.querySelector(".en").textContent,
        ko: part.querySelector(".ko").textContent,
      };
    }
  }
  const say = (key) => words[key][root.dataset.lang === "ko" ? "ko" : "en"];
  function name(select) {
    for (const option of select.options) {
      if (option.dataset.key) option.textContent = say(option.dataset.key);
    }
  }
  speak(preferred);
  follow();

  const packed = byId("pairs");
  if (!packed) return;
  const PAGE = 100;
  const OUTCOMES = ["outcome_flipped", "outcome_gained", "outcome_lost", "outcome_both", "outcome_neither"];

  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };

  const start = (data) => {
    const { items, pairs, models, seeds, statuses, strings } = data;
    const count = pairs.item.length;
    const box = byId("x");
    const selects = {};
    // Task and language are an item's; one code for each keeps the scan over pairs in integers.
    const coded = (values) => {
      const names = [...new Set(values)].sort();
      const place = new Map(names.map((v, i) => [v, i]));
      return { names, codes: Uint16Array.from(values, (v) => place.get(v)) };
    };
    const benchmark = coded(items.benchmark);
    const task = coded(items.task);
    const language = coded(items.language);
    const outcome = Uint8Array.from(pairs.item, (_, i) => {
      const a = pairs.a[i], b = pairs.b[i];
      return b > a ? 1 : b < a ? 2 : a > 0 ? 3 : 4;
    });
    const fill = (id, names, keys) => {
      const select = byId(`f-${id}`);
      select.dataset.words = "";
      const any = new Option("", "");
      any.dataset.key = "all";
      select.append(any);
      names.forEach((text, i) => {
        const option = new Option(text, String(i));
        if (keys) option.dataset.key = text;
        select.append(option);
      });
      name(select);
      selects[id] = select;
    };
    fill("outcome", OUTCOMES, true);
    fill("benchmark", benchmark.names);
    fill("task", task.names);
    fill("language", language.names);
    fill("model", models);
    fill("seed", seeds);
    selects.outcome.value = "0";
    if (language.names.length < 2) selects.language.parentElement.hidden = true;

    const body = byId("list").tBodies[0];
    const more = byId("more");
    let found = [];
    let shown = 0;
    let low = null;

    const wanted = (id) => (selects[id].value === "" ? -1 : Number(selects[id].value));
    const filter = () => {
      const began = performance.now();
      const want = {
        outcome: wanted("outcome"), benchmark: wanted("benchmark"), task: wanted("task"),
        language: wanted("language"), model: wanted("model"), seed: wanted("seed"),
      };
      const text = byId("f-text").value.trim().toLowerCase();
      if (text && !low) low = strings.map((s) => s.toLowerCase());
      const has = text ? Uint8Array.from(low, (s) => (s.includes(text) ? 1 : 0)) : null;
      const tally = [0, 0, 0, 0, 0];
      found = [];
      for (let i = 0; i < count; i++) {
        const item = pairs.item[i];
        if (want.benchmark >= 0 && benchmark.codes[item] !== want.benchmark) continue;
        if (want.task >= 0 && task.codes[item] !== want.task) continue;
        if (want.language >= 0 && language.codes[item] !== want.language) continue;
        if (want.model >= 0 && pairs.model[i] !== want.model) continue;
        if (want.seed >= 0 && pairs.seed[i] !== want.seed) continue;
        if (has && !(has[items.prompt[item]] || has[pairs.a_text[i]] || has[pairs.b_text[i]] ||
            items.id[item].toLowerCase().includes(text))) continue;
        const o = outcome[i];
        tally[o]++;
        if (want.outcome > 0 && o !== want.outcome) continue;
        if (want.outcome === 0 && o > 2) continue;
        found.push(i);
      }
      body.replaceChildren();
      shown = 0;
      page();
      if (found.length) detail(found[0], body.rows[0], false);
      else byId("detail").replaceChildren();
      byId("counts").textContent = OUTCOMES.slice(1)
        .map((key, i) => `${say(key)} ${tally[i + 1].toLocaleString("en")}`).join(" · ");
      byId("x").dataset.milliseconds = String(performance.now() - began);
    };
    const cell = (row, text, className) => {
      const td = row.insertCell();
      td.textContent = text;
      if (className) td.className = className;
      return td;
    };
    const sign = (value) => (value >= 1 ? "✓" : value > 0 ? String(value) : "✗");
    const page = () => {
      const part = document.createDocumentFragment();
      for (const i of found.slice(shown, shown + PAGE)) {
        const row = document.createElement("tr");
        const item = pairs.item[i];
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = `${items.benchmark[item]} ${items.id[item]}`;
        row.insertCell().append(button);
        cell(row, models[pairs.model[i]]);
        cell(row, seeds[pairs.seed[i]]);
        cell(row, sign(pairs.a[i]));
        cell(row, sign(pairs.b[i]));
        row.addEventListener("click", () => detail(i, row));
        part.append(row);
      }
      body.append(part);
      shown = Math.min(shown + PAGE, found.length);
      more.hidden = shown >= found.length;
    };
    const block = (parent, title, text) => {
      const h = document.createElement("h3");
      h.textContent = title;
      const pre = document.createElement("pre");
      pre.textContent = text;
      pre.tabIndex = 0;
      parent.append(h, pre);
    };
    const detail = (i, row, asked = true) => {
      for (const other of body.querySelectorAll("tr.on")) other.classList.remove("on");
      row.classList.add("on");
      const item = pairs.item[i];
      const place = byId("detail");
      place.replaceChildren();
      const head = document.createElement("p");
      const title = document.createElement("b");
      title.textContent = `${items.benchmark[item]} ${items.id[item]}`;
      head.append(title, ` · ${items.task[item]} · ${models[pairs.model[i]]} · s${seeds[pairs.seed[i]]}`);
      place.append(head);
      block(place, say("explorer_prompt"), strings[items.prompt[item]]);
      if (strings[items.gold[item]]) block(place, say("explorer_gold"), strings[items.gold[item]]);
      const both = document.createElement("div");
      both.className = "answers";
      for (const [side, who] of [["a", box.dataset.control], ["b", box.dataset.treatment]]) {
        const part = document.createElement("div");
        const status = statuses[pairs[`${side}_status`][i]];
        const value = pairs[side][i];
        const verdict = value >= 1 ? say("right") : value > 0 ? String(value) : say("wrong");
        block(part, `${who}: ${sign(value)} ${verdict}${status === "ok" ? "" : `, ${status}`}`,
          strings[pairs[`${side}_text`][i]]);
        both.append(part);
      }
      place.append(both);
      if (asked && matchMedia("(max-width: 48rem)").matches) place.scrollIntoView({ block: "nearest" });
    };
    more.addEventListener("click", page);
    byId("filters").addEventListener("input", filter);
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("language").addEventListener("click", filter);
    box.hidden = false;
    filter();
  };
  unpack(packed.textContent.trim()).then(start);
})();
