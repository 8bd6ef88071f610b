// Plays what is clicked on a long recording's card, shows where it is, and brings a result into view.
// The card comes anew with every result, so clicks are heard on the document and elements are looked up when needed.
(() => {
  const sound = new Audio();
  sound.preload = "metadata";
  let stopAt = Infinity; // seconds
  let isFollowing = false;

  const findCard = () => document.querySelector(".enclap-timeline");
  const formatClock = (seconds) => {
    const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
    const shown = parts[0] ? parts : parts.slice(1);
    return shown.map((part, i) => (i ? String(part).padStart(2, "0") : part)).join(":");
  };

  function play(start, end) {
    stopAt = end;
    sound.currentTime = start;
    sound.play().catch((problem) => problem.name !== "AbortError" && showUnplayable());
  }

  function showUnplayable() {
    const note = findCard()?.querySelector(".enclap-unplayable");
    if (note) note.hidden = false;
  }

  function stopInTime() {
    if (sound.currentTime >= stopAt && !sound.paused) sound.pause();
  }

  function showPlace() {
    const card = findCard();
    if (!card) return;
    const duration = Number(card.dataset.duration);
    // Behind the end of a stretch that was played by itself, it is still the one that is shown.
    const now = Math.min(sound.currentTime, stopAt - 0.001, duration);
    const wasUsed = sound.played.length > 0 || !sound.paused;
    card.classList.toggle("enclap-used", wasUsed);
    card.style.setProperty("--place", `${(100 * now) / duration}%`);
    card.querySelector(".enclap-now").textContent = formatClock(now);
    const button = card.querySelector(".enclap-play");
    button.classList.toggle("enclap-playing", !sound.paused);
    button.setAttribute("aria-label", sound.paused ? "Play" : "Pause");
    for (const part of card.querySelectorAll("[data-start]")) {
      const isCurrent = wasUsed && now >= Number(part.dataset.start) && now < Number(part.dataset.end);
      if (isCurrent && !part.classList.contains("enclap-current") && part.matches(".enclap-cue")) reveal(part);
      part.classList.toggle("enclap-current", isCurrent);
      if (part.matches(".enclap-cue")) part.setAttribute("aria-current", isCurrent);
    }
  }

  // Scrolls the list, never the page.
  function reveal(cue) {
    const list = cue.closest(".enclap-cues");
    const [outer, inner] = [list.getBoundingClientRect(), cue.getBoundingClientRect()];
    if (inner.top < outer.top) list.scrollTop -= outer.top - inner.top;
    if (inner.bottom > outer.bottom) list.scrollTop += inner.bottom - outer.bottom;
  }

  function follow() {
    stopInTime();
    showPlace();
    isFollowing = !sound.paused;
    if (isFollowing) requestAnimationFrame(follow);
  }

  function startFollowing() {
    if (!isFollowing) follow();
  }

  for (const event of ["play", "pause", "seeked", "ended"]) sound.addEventListener(event, startFollowing);
  sound.addEventListener("timeupdate", stopInTime); // also where the page is hidden and draws no frames
  sound.addEventListener("error", () => sound.currentSrc && showUnplayable());

  document.addEventListener("click", (event) => {
    const card = event.target.closest(".enclap-timeline");
    if (!card) return;
    const part = event.target.closest("[data-start]");
    const plot = event.target.closest(".enclap-waveform");
    if (part) {
      const [start, end] = [Number(part.dataset.start), Number(part.dataset.end)];
      const isPlaying = !sound.paused && stopAt === end && part.classList.contains("enclap-current");
      isPlaying ? sound.pause() : play(start, end);
    } else if (plot) {
      const box = plot.getBoundingClientRect();
      play((Number(card.dataset.duration) * (event.clientX - box.left)) / box.width, Infinity);
    } else if (event.target.closest(".enclap-play")) {
      const isAtEnd = sound.currentTime >= Number(card.dataset.duration) - 0.05;
      sound.paused ? play(isAtEnd ? 0 : sound.currentTime, Infinity) : sound.pause();
    }
  });

  // Called when a result has come, with the recording as it was captioned where that is a long one.
  window.enclapShowResult = (heard) => {
    sound.pause();
    stopAt = Infinity;
    if (heard) sound.src = heard.url;
    else sound.removeAttribute("src");
    // Behind the frame in which the page takes the result in.
    requestAnimationFrame(() => requestAnimationFrame(() => {
      showPlace();
      const top = document.querySelector("#enclap-captions").getBoundingClientRect().top;
      if (top >= 0 && top < innerHeight / 2) return;
      const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      const page = document.scrollingElement;
      page.scrollTo({ top: page.scrollTop + top - 12, behavior: isCalm ? "auto" : "smooth" });
    }));
  };
})();
