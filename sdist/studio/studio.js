/* The page's own script: the tab's name, a goodbye, and names for controls that have none. */
window.sdistStudio = (() => {
  const KEY = "sdist-tab", WAIT = 150; // ms in which another tab may say that the name is its own
  const tabs = "BroadcastChannel" in window ? new BroadcastChannel("sdist-studio") : null;
  let mine = null;

  tabs?.addEventListener("message", ({ data }) => { if (mine && data.asked === mine) tabs.postMessage({ taken: mine }); });

  const stored = () => { try { return sessionStorage.getItem(KEY); } catch { return null; } };
  const store = name => { try { sessionStorage.setItem(KEY, name); } catch { /* then a reload begins anew */ } };
  const fresh = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), byte => byte.toString(16).padStart(2, "0")).join("");
  const isTaken = name => new Promise(done => { // a duplicated tab has a copy of the storage
    if (navigator.locks) { // a page that is loaded again gets the lock as soon as the old one has gone
      const signal = AbortSignal.timeout(8 * WAIT);
      const held = () => { done(false); return new Promise(() => {}); };
      navigator.locks.request(`sdist-${name}`, { signal }, held).catch(() => done(true));
      return;
    }
    if (!tabs) return done(false); // from here on: where the page is not a secure context
    tabs.addEventListener("message", ({ data }) => { if (data.taken === name) done(true); });
    tabs.postMessage({ asked: name });
    setTimeout(() => done(false), WAIT);
  });

  async function tab() {
    const kept = mine || stored();
    mine = kept && (kept === mine || !(await isTaken(kept))) ? kept : fresh();
    store(mine);
    if (mine !== kept) isTaken(mine);
    return mine;
  }

  addEventListener("pagehide", () => {
    if (mine) navigator.sendBeacon(`${(window.gradio_config?.root ?? "").replace(/\/$/, "")}/left/${mine}`);
  });

  let paints = false;
  addEventListener("pointerdown", ({ target }) => { paints = !!target.closest?.("#editor"); }, true);
  addEventListener("pointerup", () => {
    if (paints) setTimeout(() => document.querySelector("#brushed")?.click(), 200); // the stroke is committed by then
    paints = false;
  }, true);

  const name = (element, text) => {
    if (element && text && element.getAttribute("aria-label") !== text) element.setAttribute("aria-label", text);
  };
  const label = () => {
    for (const button of document.querySelectorAll("#scenes button.thumbnail-item, #runs button.thumbnail-item"))
      name(button, button.querySelector(".caption-label")?.textContent.trim());
    for (const token of document.querySelectorAll("#methods .token"))
      name(token.querySelector(".token-remove"), `remove ${token.firstElementChild.textContent.trim()}`);
    name(document.querySelector("#methods .remove-all"), "remove all methods");
    for (const image of document.querySelectorAll("#picture img, #editor img")) if (!image.alt) image.alt = "the picture to edit";
    for (const button of document.querySelectorAll("button.upload-container")) name(button, button.innerText.replace(/\s+/g, " ").trim());
  };
  let waits = false;
  new MutationObserver(() => {
    if (!waits) requestAnimationFrame(() => { waits = false; label(); });
    waits = true;
  }).observe(document.documentElement, { childList: true, subtree: true });

  setInterval(async () => { // a page whose server has gone hears nothing more of its edit
    const bar = document.querySelector("#status progress:not([value='1.000'])");
    if (!bar || await fetch(location.href, { method: "HEAD", cache: "no-store" }).catch(() => null)) return;
    bar.nextElementSibling.textContent = "the studio was closed or cannot be reached";
    bar.remove();
  }, 3000);

  const look = () => { // on a telephone the picture is below what is asked
    if (!document.querySelector("#problem .problem")) document.getElementById("stage").scrollIntoView({ block: "nearest" });
  };
  return { tab, look };
})();
