// Finding and making the page's elements. Text from a record is only ever set as text, never as HTML.

export function element(id) {
  return document.getElementById(id);
}

/** A new element with a class and a text. */
export function make(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/** A colour of a record, three bytes, as CSS. */
export function cssColour([red, green, blue]) {
  return `rgb(${Number(red)} ${Number(green)} ${Number(blue)})`;
}

/** Fill a description list with the rows that have a value. */
export function showPairs(list, rows) {
  const filled = Object.entries(rows).filter(([, value]) => value);
  list.replaceChildren(...filled.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", String(value))]));
}
