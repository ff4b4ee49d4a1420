//! The terminal: keys, resizes and signals.

use std::{io, time::Duration};

use anyhow::Context as _;
use drawbridge_runtime::ShutdownSignals;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    Scraper,
    figures::{Figures, Since},
    screen::{Command, Screen},
};

/// How long the thread that reads keys may take to notice that nothing wants them.
const POLL: Duration = Duration::from_millis(100);

/// Shows the screen until a key or a signal ends it.
pub(super) async fn run(scraper: Scraper, every: Duration) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let shown = show(&mut terminal, scraper, every).await;
    ratatui::try_restore().context("cannot restore the terminal")?;
    shown.context("cannot use the terminal")
}

/// What the terminal reports.
enum Input {
    Command(Command),
    Resize,
}

async fn show(terminal: &mut DefaultTerminal, scraper: Scraper, every: Duration) -> io::Result<()> {
    let mut screen = Screen::new(std::env::var_os("NO_COLOR").is_none());
    let (mut signals, mut inputs) = (ShutdownSignals::listen(), read_inputs());
    let mut scraped = scrape(scraper, every);
    loop {
        tokio::select! {
            () = signals.next() => return Ok(()),
            input = inputs.recv() => match input {
                Some(Input::Command(command)) if screen.follow(command) => {}
                Some(Input::Resize) => terminal.autoresize()?,
                // The terminal is closed, or the person quits.
                None | Some(Input::Command(_)) => return Ok(()),
            },
            Some(figures) = scraped.recv() => {
                if !screen.is_paused {
                    screen.set_figures(figures);
                }
            }
        }
        terminal.draw(|frame| screen.draw(frame))?;
    }
}

/// Scrapes in a task of its own, until the receiver is dropped: keys do not wait for a service.
fn scrape(mut scraper: Scraper, every: Duration) -> mpsc::Receiver<Figures> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            scraper.scrape().await;
            if sender.send(scraper.figures(Since::FirstRound)).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reads keys and resizes on a thread of its own, until the receiver is dropped.
fn read_inputs() -> mpsc::Receiver<Input> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let input = match event::poll(POLL) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let Ok(input) = input else { return };
            let input = match input {
                Event::Resize(..) => Some(Input::Resize),
                Event::Key(key) => command(key).map(Input::Command),
                _ => None,
            };
            if input.is_some_and(|input| sender.blocking_send(input).is_err()) {
                return;
            }
        }
    });
    receiver
}

fn command(key: KeyEvent) -> Option<Command> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if is_control => Some(Command::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Command::Quit),
        KeyCode::Char('s') => Some(Command::Sort),
        KeyCode::Char(' ') => Some(Command::Pause),
        KeyCode::Up | KeyCode::Char('k') => Some(Command::Up),
        KeyCode::Down | KeyCode::Char('j') => Some(Command::Down),
        _ => None,
    }
}
