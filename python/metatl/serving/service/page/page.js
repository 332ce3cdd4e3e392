// The page of `metatl serve`: search items, pick some, see what is recommended and why.

const $ = (id) => document.getElementById(id);
const history = [];           // the picked items, oldest first: rows of the item table
let run = {};
let newest = { found: 0, list: 0 };   // the latest request of each kind: older answers are dropped

const LISTED = 10;
const WAIT = 150;             // milliseconds after the last key

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function report(error) {
  $("error").textContent = error === null ? "" : error.message;
  $("error").hidden = error === null;
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function describe(item) {
  const shown = ["winery", "type", "country", "grapes", "price"].map((name) => item[name]).filter(Boolean);
  if (shown.length) return shown.join(" · ");
  const others = Object.entries(item).filter(([name, value]) =>
    value !== null && !["item_id", "title", "picture", "image"].includes(name) && value !== item.title);
  return others.slice(0, 3).map(([name, value]) => `${name}: ${value}`).join(" · ");
}

function card(item, { rank, move } = {}, ...buttons) {
  const parts = [];
  if (rank !== undefined) parts.push(element("span", { className: "rank" }, String(rank)));
  const picture = item.picture ?? item.image;
  if (typeof picture === "string") parts.push(element("img", { src: picture, alt: "", loading: "lazy" }));
  const text = element("div", { className: "text" }, item.title, element("small", {}, describe(item)));
  parts.push(text);
  if (move !== undefined) parts.push(element("span", { className: "move" }, move));
  return element("li", { className: "card" }, ...parts, ...buttons);
}

function button(text, label, onclick) {
  const made = element("button", { type: "button", onclick }, text);
  made.setAttribute("aria-label", label);
  return made;
}

const row = (recommended) => recommended.item ?? { item_id: recommended.item_id, title: String(recommended.item_id) };

// --- Search

async function search() {
  const mine = ++newest.found;
  const query = $("query").value;
  try {
    const answer = await ask(`items?limit=12&query=${encodeURIComponent(query)}`);
    if (mine !== newest.found) return;
    $("found-count").textContent = `${answer.total} ${answer.total === 1 ? "item" : "items"}` +
      (query.trim() ? "" : ", the most popular first");
    $("found").replaceChildren(...answer.items.map((item) =>
      card(item, {}, button("Pick", `Pick ${item.title}`, () => pick(item)))));
    report(null);
  } catch (error) {
    if (mine === newest.found) report(error);
  }
}

let waiting;
$("query").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(search, WAIT);
});

// --- Picks

function pick(item) {
  history.push(item);
  showHistory();
  recommend();
}

function showHistory() {
  $("no-history").hidden = history.length > 0;
  $("clear").hidden = history.length === 0;
  $("history").replaceChildren(...history.map((item, position) =>
    card(item, {}, button("Remove", `Remove ${item.title}`, () => {
      history.splice(position, 1);
      showHistory();
      recommend();
      $("query").focus();
    }))));
}

$("clear").addEventListener("click", () => {
  history.length = 0;
  showHistory();
  recommend();
  $("query").focus();
});

// --- Recommendations

function conditions() {
  const where = {};
  for (const select of $("filters").querySelectorAll("select")) if (select.value) where[select.name] = select.value;
  return where;
}

async function recommend() {
  const mine = ++newest.list;
  const where = conditions();
  const body = {
    history: history.map((item) => item.item_id), top: LISTED, include_history: $("again").checked,
    ...(Object.keys(where).length ? { where } : {}),
  };
  const compared = $("compare").value;
  try {
    const asked = [ask("recommend", body)];
    if (compared && history.length) {
      // A longer list, so that an item that comes from far below has a rank to compare with.
      const other = { ...body, top: 100 };
      if (compared === "pick") other.history = body.history.slice(0, -1);
      else other.inner_step = false;
      asked.push(ask("recommend", other));
    }
    const [answer, other] = await Promise.all(asked);
    if (mine !== newest.list) return;
    showList(answer.users[0], other?.users[0]);
    report(null);
  } catch (error) {
    if (mine === newest.list) report(error);
  }
}

function showList(user, other) {
  const before = other && new Map(other.items.map((item, index) => [item.item_id, index + 1]));
  $("list-status").textContent = user.items.length === 0 ? "No item is left: loosen the filters."
    : user.basis === "history" ? `${user.items.length} items from your picks`
    : `The ${user.items.length} most popular items`;
  $("list").replaceChildren(...user.items.map((recommended, index) => {
    const item = row(recommended);
    const buttons = [button("Pick", `Pick ${item.title}`, () => pick(item))];
    if (history.length) buttons.unshift(button("Why?", `Why ${item.title}?`, () => details(item)));
    return card(item, { rank: index + 1, move: before && moved(before.get(recommended.item_id), index + 1) }, ...buttons);
  }));
}

function moved(before, now) {
  if (before === undefined) return "new";
  if (before === now) return "=";
  return before > now ? `▲ ${before - now}` : `▼ ${now - before}`;
}

$("compare").addEventListener("change", recommend);
$("again").addEventListener("change", recommend);

// --- Why, and what is similar

async function details(item) {
  try {
    const [why, similar] = await Promise.all([
      ask("explain", { history: history.map((picked) => picked.item_id), item: item.item_id }),
      ask("similar", { ids: [item.item_id], top: 5 }),
    ]);
    $("details-title").textContent = item.title;
    showShares(why);
    $("similar").replaceChildren(...similar.items[0].map((recommended) => {
      const other = row(recommended);
      return card(other, {}, button("Pick", `Pick ${other.title}`, () => { $("details").close(); pick(other); }));
    }));
    $("details").showModal();
    report(null);
  } catch (error) {
    report(error);
  }
}

function showShares(why) {
  const title = (id) => history.find((item) => item.item_id === id)?.title ?? String(id);
  const shares = [
    ...why.items.map((part) => [title(part.item_id), part.share]),
    ...why.transitions.map((part) => [`${title(part.from_item_id)} → ${title(part.to_item_id)}`, part.share]),
  ];
  if (why.adaptation !== 0) shares.push(["the inner step", why.adaptation]);
  const largest = Math.max(...shares.map(([, share]) => Math.abs(share)), 1e-9);
  $("shares").replaceChildren(...shares.map(([name, share]) => {
    const number = element("span", { className: "number" }, share.toFixed(2));
    return element("li", {}, element("span", {}, name), bar(share / largest), number);
  }));
}

function bar(share) {
  const draw = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const picture = draw("svg", { viewBox: "-50 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  const width = Math.abs(share) * 48;
  picture.append(
    draw("rect", { x: share < 0 ? -width : 0, y: 1, width, height: 8, class: share < 0 ? "against" : "for" }),
    draw("line", { x1: 0, y1: 0, x2: 0, y2: 10, class: "axis", "vector-effect": "non-scaling-stroke" }),
  );
  return picture;
}

// --- Start

async function start() {
  try {
    run = await ask("ready");
    $("run").textContent = `${run.model} (${run.preset}), ${run.items} items`;
    $("compare-step").hidden = !run.inner_step;
    const { columns } = await ask("columns");
    $("filters").replaceChildren(...Object.entries(columns).map(([name, values]) => {
      const select = element("select", { name, onchange: recommend }, element("option", { value: "" }, "any"),
        ...values.map((value) => element("option", { value }, value)));
      return element("label", {}, name, select);
    }));
    await Promise.all([search(), recommend()]);
  } catch (error) {
    report(error);
  }
}

start();
