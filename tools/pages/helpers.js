"use strict";
// Small helpers of the pages: look_inside.py's and export_web.py's.

// Return the first element that matches a CSS selector, or null.
function find(selector) {
  return document.querySelector(selector);
}

// Return all elements that match a CSS selector, as an array.
function findAll(selector) {
  return [...document.querySelectorAll(selector)];
}

// Return a new element with a text; texts are never read as HTML.
function element(tag, text = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

// Return a token with a visible sign for each space, line break and tab.
function signs(token) {
  return token.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
}
