//! The screen: figures as two tables that fit a terminal of 80 columns and 24 lines.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::Line,
    widgets::{Cell, Paragraph, Row, Table, TableState},
};

use super::{
    figures::{Figures, ServiceFigures, ToolFigures},
    plain::{SERVICE_HEADER, service_cells, summary, tool_cells},
};

/// How many lines the table of services has at most, without its header.
const SERVICES_MAX: u16 = 10;

/// By what tools are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SortBy {
    #[default]
    Rate,
    Latency,
    Failed,
    Name,
}

impl SortBy {
    const ALL: [Self; 4] = [Self::Rate, Self::Latency, Self::Failed, Self::Name];

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|it| *it == self).unwrap_or_default();
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rate => "calls/s",
            Self::Latency => "p95",
            Self::Failed => "failed",
            Self::Name => "name",
        }
    }

    fn sort(self, tools: &mut [ToolFigures]) {
        let latency = |tool: &ToolFigures| tool.latency.p95.unwrap_or_default();
        tools.sort_by(|one, other| match self {
            Self::Rate => (other.calls_per_second, other.calls)
                .partial_cmp(&(one.calls_per_second, one.calls))
                .unwrap_or(std::cmp::Ordering::Equal),
            Self::Latency => latency(other).total_cmp(&latency(one)),
            Self::Failed => other.failed().total_cmp(&one.failed()),
            Self::Name => one.name.cmp(&other.name),
        });
    }
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Quit,
    Sort,
    Pause,
    Up,
    Down,
}

/// What the screen shows.
#[derive(Debug, Default)]
pub(super) struct Screen {
    figures: Figures,
    sort_by: SortBy,
    pub(super) is_paused: bool,
    pub(super) has_colors: bool,
    selected: TableState,
}

impl Screen {
    pub(super) fn new(has_colors: bool) -> Self {
        Self { has_colors, ..Self::default() }
    }

    pub(super) fn set_figures(&mut self, figures: Figures) {
        self.figures = figures;
        self.sort_by.sort(&mut self.figures.tools);
    }

    /// Follows a command. Returns whether to go on.
    pub(super) fn follow(&mut self, command: Command) -> bool {
        match command {
            Command::Quit => return false,
            Command::Sort => {
                self.sort_by = self.sort_by.next();
                self.sort_by.sort(&mut self.figures.tools);
            }
            Command::Pause => self.is_paused = !self.is_paused,
            Command::Up => self.selected.select_previous(),
            Command::Down => self.selected.select_next(),
        }
        true
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let services = u16::try_from(self.figures.services.len()).unwrap_or(SERVICES_MAX);
        let [head, tools, below, help] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Min(3),
            Constraint::Length(services.min(SERVICES_MAX) + 2),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(summary(&self.figures)).style(self.bold()), head);
        self.draw_tools(frame, tools);
        self.draw_services(frame, below);
        frame.render_widget(Paragraph::new(self.help()), help);
    }

    fn draw_tools(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let header = ["tool", "calls/s", "calls", "p50", "p95", "failed", "why"];
        let rows: Vec<_> = self
            .figures
            .tools
            .iter()
            .map(|tool| {
                let style =
                    if tool.failed() > 0.0 { self.color(Color::Yellow) } else { Style::new() };
                Row::new(tool_cells(tool)).style(style)
            })
            .collect();
        let widths = [
            Constraint::Fill(3),
            Constraint::Length(7),
            Constraint::Length(7),
            Constraint::Length(7),
            Constraint::Length(7),
            Constraint::Length(6),
            Constraint::Fill(2),
        ];
        let table = Table::new(rows, widths)
            .header(Row::new(header).style(self.bold()))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, area, &mut self.selected);
    }

    fn draw_services(&self, frame: &mut Frame<'_>, area: Rect) {
        let row = |service: &ServiceFigures| {
            let color = if service.is_healthy { Color::Green } else { Color::Red };
            let cells = service_cells(service).into_iter().enumerate();
            let style = |at| if at == 1 { self.color(color) } else { Style::new() };
            Row::new(cells.map(|(at, text)| Cell::new(text).style(style(at))))
        };
        let rows: Vec<_> = self.figures.services.iter().map(row).collect();
        let widths = [
            Constraint::Length(10),
            Constraint::Fill(1),
            Constraint::Length(7),
            Constraint::Length(4),
            Constraint::Length(5),
            Constraint::Length(5),
            Constraint::Length(6),
            Constraint::Length(7),
            Constraint::Length(7),
        ];
        let table = Table::new(rows, widths).header(Row::new(SERVICE_HEADER).style(self.bold()));
        frame.render_widget(table, area);
    }

    fn help(&self) -> Line<'static> {
        let pause = if self.is_paused { "space go on (paused)" } else { "space pause" };
        Line::from(format!("q quit   ↑ ↓ scroll   s sort (by {})   {pause}", self.sort_by.name()))
    }

    fn bold(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn color(&self, color: Color) -> Style {
        if self.has_colors { Style::new().fg(color) } else { Style::new() }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::{
        super::figures::{Since, tests::figures},
        *,
    };

    fn render(screen: &mut Screen, columns: u16, lines: u16) -> TestBackend {
        let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal.backend().clone()
    }

    #[test]
    fn the_screen_fits_a_terminal_of_80_columns_and_24_lines() {
        let mut screen = Screen::new(false);
        screen.set_figures(figures(Since::FirstRound));
        insta::assert_snapshot!(render(&mut screen, 80, 24).to_string(), @r#"
        "mesh 7180: 3.9 calls/s, p50 7.2 ms, p95 756 ms, 4 sessions, 2 streams, 1 queued "
        "                                                                                "
        "tool                     calls/s calls   p50     p95     failed why             "
        "code_search              2.0     20      10 ms   47 ms   2      tool_error 2    "
        "tools/list               1.0     10      1.5 ms  1.9 ms  0                      "
        "invoices_extract         0.4     4       750 ms  975 ms  0                      "
        "tickets_search           0.3     3       0.8 ms  1.0 ms  3      policy_denied 3 "
        "code_list_files          0.2     2       3.5 ms  4.9 ms  0                      "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "service    health                calls/s run  queue sess. leases memory  version"
        "edge       ready                 3.9     4    0     4     -      64 MiB  0.1.0  "
        "code       degraded: vault       0.0     3    1     1     2      -              "
        "auth       no answer: Connection 0.0     0    0     -     -      -              "
        "                                                                                "
        "q quit   ↑ ↓ scroll   s sort (by calls/s)   space pause                         "
        "#);
    }

    #[test]
    fn keys_sort_scroll_pause_and_quit() {
        let mut screen = Screen::new(false);
        screen.set_figures(figures(Since::FirstRound));
        let first = |screen: &Screen| screen.figures.tools[0].name.clone();
        assert_eq!(first(&screen), "code_search");
        assert!(screen.follow(Command::Sort));
        assert_eq!(first(&screen), "invoices_extract", "it is the slowest");
        assert!(screen.follow(Command::Sort) && screen.follow(Command::Sort));
        assert_eq!(first(&screen), "code_list_files");
        assert!(screen.follow(Command::Down) && screen.follow(Command::Down));
        assert!(screen.follow(Command::Up));
        assert_eq!(screen.selected.selected(), Some(0));
        assert!(screen.follow(Command::Pause) && screen.is_paused);
        assert!(!screen.follow(Command::Quit));
    }

    #[test]
    fn colors_are_used_only_where_they_are_shown() {
        let has_colors = |has_colors: bool| {
            let mut screen = Screen::new(has_colors);
            screen.set_figures(figures(Since::FirstRound));
            let backend = render(&mut screen, 80, 24);
            backend.buffer().content().iter().any(|cell| cell.fg != Color::Reset)
        };
        assert!(has_colors(true) && !has_colors(false));
    }

    #[test]
    fn a_small_terminal_and_no_figures_are_no_error() {
        let mut screen = Screen::new(true);
        for (columns, lines) in [(1, 1), (20, 3), (80, 5), (300, 100)] {
            render(&mut screen, columns, lines);
            screen.set_figures(figures(Since::FirstRound));
            screen.follow(Command::Down);
        }
    }
}
