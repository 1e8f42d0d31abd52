"use strict";
// The latent browser. Data reaches the page only through textContent, never as markup.
(() => {
  const PAGE = 50;
  const browsers = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  // What the page's writer has marked as invisible, and the controls that JSON escapes.
  const HIDDEN = /\ue000([0-9A-F]+)\ue001|[\u0000-\u001f]/g;
  const state = { browser: null, order: [], page: 0, sort: "latent", down: false };

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function options(select, values, labels) {
    select.replaceChildren(...values.map((value, i) => {
      const option = element("option", labels ? labels[i] : value);
      option.value = value;
      return option;
    }));
  }

  function column(id) {
    return state.browser.columns.find((c) => c.id === id);
  }

  function matching(start) {
    return state.browser.columns.filter((c) => c.id.startsWith(start));
  }

  function labellers() {
    const found = matching("category by ").map((c) => c.id);
    return column("true_category") ? ["true_category", ...found] : found;
  }

  function shown(value, digits) {
    if (value === null || value === undefined || value === "") return "–";
    if (digits === null || digits === 0) return String(value);
    const size = Math.abs(value);
    return size !== 0 && size < 0.001 ? value.toExponential(1) : value.toFixed(digits);
  }

  function told(c, value) {
    return c.id === "true_category" || c.id.startsWith("category ") ? value.replaceAll("_", " ") : value;
  }

  // Characters that cannot be seen or that turn the writing round are shown by their number.
  function writeText(parent, text) {
    let last = 0;
    for (const match of text.matchAll(HIDDEN)) {
      parent.append(text.slice(last, match.index));
      last = match.index + match[0].length;
      if (match[0] === "\n") parent.append(element("span", "⏎", "unseen"), "\n");
      else {
        const code = match[1] || match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
        parent.append(element("span", "U+" + code, "unseen"));
      }
    }
    parent.append(text.slice(last));
  }

  function choose(index) {
    state.browser = browsers[index];
    options(at("owner"), ["*", ...state.browser.models, ""], ["any or none", ...state.browser.models, "none (shared)"]);
    const by = labellers();
    options(at("labeller"), by, by.map((id) => (id === "true_category" ? "true" : id.slice(12))));
    categories();
  }

  function categories() {
    const labels = column(at("labeller").value);
    const found = labels ? [...new Set(labels.values.filter((v) => v !== ""))].sort() : [];
    options(at("category"), ["*", ...found], ["any", ...found.map((v) => v.replaceAll("_", " "))]);
  }

  function visible() {
    const b = state.browser;
    const fixed = ["latent", "unique_to", at("labeller").value];
    const scores = b.columns.filter((c) => c.id.startsWith("AUROC by ") && !c.id.includes(","));
    const rest = b.columns.filter((c) => c.id.startsWith("delta_norm_") || c.id === "firing_rate" || c.id === "documents");
    const chosen = [...fixed.map(column), ...matching("explanation by "), ...scores, ...rest];
    return chosen.filter((c) => c !== undefined);
  }

  function filter() {
    const b = state.browser;
    const owner = at("owner").value, category = at("category").value;
    const least = at("score").value === "" ? null : Number(at("score").value);
    const words = at("search").value.toLowerCase().split(/\s+/).filter((w) => w);
    const owners = column("unique_to").values, labels = column(at("labeller").value);
    const scores = b.columns.filter((c) => c.id.startsWith("AUROC by ") && !c.id.includes(","));
    const texts = b.columns.filter((c) => c.digits === null && !c.id.startsWith("status_"));
    const ids = column("latent").values;
    const keep = [];
    for (let i = 0; i < ids.length; i++) {
      if (owner !== "*" && !owners[i].split("+").includes(owner)) continue;
      if (category !== "*" && labels && labels.values[i] !== category) continue;
      if (least !== null && !scores.some((c) => c.values[i] !== null && c.values[i] >= least)) continue;
      if (words.length) {
        const text = (ids[i] + " " + texts.map((c) => c.values[i]).join(" ")).toLowerCase();
        if (!words.every((w) => text.includes(w))) continue;
      }
      keep.push(i);
    }
    const key = (column(state.sort) || column("latent")).values;
    const turn = state.down ? -1 : 1;
    const missing = (v) => v === null || v === undefined || v === "";
    keep.sort((i, j) => {
      const a = key[i], c = key[j];
      if (missing(a) || missing(c)) return missing(a) - missing(c) || i - j;
      return (a < c ? -turn : a > c ? turn : 0) || i - j;
    });
    state.order = keep;
    state.page = 0;
    draw();
  }

  function draw() {
    const columns = visible(), b = state.browser;
    const head = element("tr");
    for (const c of columns) {
      const cell = element("th"), button = element("button", c.label + (state.sort === c.id ? (state.down ? " ↓" : " ↑") : ""));
      cell.scope = "col";
      if (state.sort === c.id) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      button.type = "button";
      button.addEventListener("click", () => {
        state.down = state.sort === c.id ? !state.down : false;
        state.sort = c.id;
        filter();
        [...at("latents").tHead.querySelectorAll("button")].find((x) => x.textContent.startsWith(c.label))?.focus();
      });
      cell.append(button);
      head.append(cell);
    }
    at("latents").tHead.replaceChildren(head);
    const rows = state.order.slice(state.page * PAGE, (state.page + 1) * PAGE).map((i) => {
      const row = element("tr");
      for (const c of columns) {
        const cell = element("td");
        if (c.id === "latent") {
          const link = element("a", String(c.values[i]));
          link.href = "#latent=" + b.fit + "/" + c.values[i];
          cell.append(link);
        } else if (c.digits === null) {
          if (c.id.startsWith("explanation")) cell.className = "long";
          writeText(cell, told(c, c.values[i]) || "–");
        } else cell.textContent = shown(c.values[i], c.digits);
        row.append(cell);
      }
      return row;
    });
    at("latents").tBodies[0].replaceChildren(...rows);
    const pages = Math.max(1, Math.ceil(state.order.length / PAGE));
    const held = column("latent").values.length;
    at("count").textContent = state.order.length + " of " + held + " live latents" +
      (b.live > held ? " on this page; all " + b.live + " are in latents.parquet" : "");
    at("page").textContent = "page " + (state.page + 1) + " of " + pages;
    at("previous").disabled = state.page === 0;
    at("next").disabled = state.page >= pages - 1;
  }

  function context(item, maximum, pieces) {
    const box = element("div", undefined, "context"), text = element("p");
    const active = new Map(item.active);
    // Silent pieces are one text: a break between them would part letters that are written as one.
    let silent = "";
    const flush = () => { writeText(text, silent); silent = ""; };
    item.tokens.forEach((token, i) => {
      const value = active.get(i) || 0;
      if (!value) { silent += pieces[token]; return; }
      flush();
      const piece = element("span", undefined, "active");
      writeText(piece, pieces[token]);
      piece.style.background = "rgba(var(--shade), " + (0.08 + 0.72 * Math.min(value / maximum, 1)).toFixed(2) + ")";
      piece.title = "activation " + value;
      text.append(piece);
    });
    flush();
    box.append(element("small", "document " + item.document + ", " + item.split + " split"), text);
    return box;
  }

  function open(id) {
    const b = state.browser, article = at("latent");
    const index = column("latent").values.indexOf(id);
    if (index < 0) {
      article.replaceChildren(element("h3", "No live latent " + id + " in " + b.fit));
      article.hidden = false;
      return;
    }
    const parts = [element("h3", "Latent " + id + " of " + b.fit + " (layer " + b.layer + ", seed " + b.seed + ")")];
    const facts = element("dl");
    for (const c of b.columns) {
      if (c.id === "latent" || c.id.startsWith("± ") || c.id.endsWith("_se") || /, (low|high)$/.test(c.id)) continue;
      const value = c.values[index];
      if (value === null || value === "") continue;
      let words = c.digits === null ? told(c, value) : shown(value, c.digits);
      const error = column(c.id + "_se"), low = column(c.id + ", low"), high = column(c.id + ", high");
      if (error) words += " ± " + shown(error.values[index], 3);
      if (low && high) words += " (" + shown(low.values[index], 2) + " … " + shown(high.values[index], 2) + ")";
      if (c.id.startsWith("explanation ")) {
        const text = element("p");
        text.append(element("strong", c.label + ": "));
        writeText(text, value);
        parts.push(text);
        continue;
      }
      const pair = element("div"), answer = element("dd");
      writeText(answer, words);
      pair.append(element("dt", c.label), answer);
      facts.append(pair);
    }
    parts.push(facts);
    const contexts = b.contexts[String(id)] || [];
    parts.push(element("h3", contexts.length ? "Contexts in which it fires" : "No contexts are kept: it is not in the sample of shared latents"));
    for (const item of contexts) parts.push(context(item, b.maxima[String(id)] || 1, b.pieces));
    article.replaceChildren(...parts);
    article.hidden = false;
  }

  function follow(scroll) {
    const match = /^#latent=([a-z0-9_]+)\/(\d+)$/.exec(location.hash);
    if (!match) return;
    const index = browsers.findIndex((b) => b.fit === match[1]);
    if (index < 0) return;
    if (browsers[index] !== state.browser) {
      at("fit").value = String(index);
      choose(index);
      filter();
    }
    open(Number(match[2]));
    if (scroll) {
      at("latent").scrollIntoView();
      at("latent").focus({ preventScroll: true });
    }
  }

  // What is folded away by question is printed; rows stay as the reader left them.
  const questions = () => [...document.querySelectorAll("details.question")];
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = questions().filter((details) => !details.open);
    for (const details of opened) details.open = true;
  });
  window.addEventListener("afterprint", () => { for (const details of opened) details.open = false; });

  if (!browsers.length) return;
  options(at("fit"), browsers.map((_, i) => String(i)), browsers.map((b) => b.fit));
  choose(0);
  filter();
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  at("fit").addEventListener("change", () => { choose(Number(at("fit").value)); filter(); });
  at("labeller").addEventListener("change", () => { categories(); filter(); });
  for (const id of ["owner", "category", "score", "search"]) at(id).addEventListener("input", filter);
  at("previous").addEventListener("click", () => { state.page -= 1; draw(); });
  at("next").addEventListener("click", () => { state.page += 1; draw(); });
  window.addEventListener("hashchange", () => follow(true));
  follow(true);
})();
