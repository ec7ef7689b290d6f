// Players who change and save their profiles all the time, as long as something is measured.

/** After how long a player tries again what could not be done now. */
const AGAIN_MS = 100;

export class Playing {
  saves = 0;
  #goesOn = true;
  #players;

  constructor(profiles, againMs = AGAIN_MS) {
    this.#players = Promise.all(profiles.map((profile) => this.#play(profile, againMs)));
    // Where it fails before something is done beside it, that fails too.
    this.#players.catch(() => {});
  }

  /** As a game does: what is refused for now is tried again. */
  async #play(profile, againMs) {
    while (this.#goesOn) {
      try {
        profile.update((data) => {
          data.coins += 1;
        });
        await profile.save();
        this.saves++;
      } catch (error) {
        // Sessions end with what was measured beside them. That is no fault of theirs.
        if (!this.#goesOn) return;
        if (!error.advice?.startsWith("retry")) throw error;
        await new Promise((done) => setTimeout(done, againMs));
      }
    }
  }

  /** Does something beside play. Fails with whichever error came first, of the work or of play. */
  async beside(work) {
    const over = this.#players.then(() => {
      throw new Error("the players have stopped");
    });
    try {
      return await Promise.race([work(), over]);
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  /** No player begins another change. */
  stop() {
    this.#goesOn = false;
  }
}
